"""mksgn-train as a user meets it."""

import json
import subprocess
import sys

import pytest

from mksgn.train import checkpoint, cli

TINY = "student: {frames: 4, stream_channels: 2, widths: [4], heads: 2, kernel: 3}\nepochs: 2\nbatch: 4\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def with_arguments(*arguments):
        monkeypatch.setattr(sys, "argv", ["mksgn-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return with_arguments


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def assert_one_line(result, said):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("mksgn-train: ")
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not set("╭│╰─") & set(err)  # no panel


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch-count", "3"], "No such option: --epoch-count"),
        (["--epochs", "0"], "Invalid value for '--epochs'"),
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["demo", "small"], "unexpected extra argument"),
        (["huge"], "config huge: neither a preset (demo, small, paper) nor a YAML file"),
        (["absent.yaml"], "config absent.yaml: neither a preset"),
        (["--data", "kinetics:clips"], "unknown source 'kinetics:clips': use one of synthetic, nw-ucla:PATH"),
        (["--data", "nw-ucla"], "source 'nw-ucla' must have the form nw-ucla:PATH"),
        (["--data", "nw-ucla:absent"], "absent is not a folder"),
        (["--split", "xview"], "synthetic has no split 'xview': use one of synthetic"),
        (["--device", "tpu"], "--device tpu: not available here; use cpu"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr_and_2(run, tmp_path, arguments, said):
    assert_one_line(run(*arguments), said)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: [3\n", "no valid YAML"),
        ("colour: red\n", "unknown entries colour"),
        ("epochs: 0\n", "epochs is 0"),
    ],
)
def test_a_config_file_that_is_wrong_is_one_line_too(run, tiny, text, said):
    tiny.write_text(text)
    assert_one_line(run(tiny), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("student: {colour: red}\n", "student config: unknown entries colour"),
        ("student: {heads: 3}\n", "is no multiple of heads 3"),
        ("student: {attention: softmax}\n", "attention is 'softmax'; choose one of self, none"),
    ],
)
def test_a_student_that_cannot_be_built_is_one_line_too(run, tiny, text, said):
    tiny.write_text(text)
    code, _, err = run(tiny, "--limit", 4)
    assert_one_line((code, "", err), said)


def test_help_shows_an_example(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "Example: mksgn-train demo --data synthetic --out runs/demo" in out
    assert not set("╭│╰") & set(out)
    for option in ("[CONFIG]", "--data", "--out", "--split", "--epochs", "--limit", "--seed", "--resume", "--device"):
        assert option in out


def test_it_trains_says_so_and_resumes(run, tiny, tmp_path):
    out = tmp_path / "run"
    arguments = (tiny, "--out", out, "--limit", 12, "--seed", 3)
    code, said, err = run(*arguments)
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "training custom on 12 clips of synthetic, 12 classes"
    assert [line.split("loss")[0].strip() for line in lines[1:3]] == ["epoch   1/2", "epoch   2/2"]
    assert "held-out" in lines[2]
    digest = checkpoint.sha256(out / "model.pt")
    assert f"sha256 {digest[:16]}" in "".join(lines[3:])
    model = checkpoint.load(out / "model.pt")
    assert model.training["seed"] == 3
    assert model.training["clips"] == 12
    assert json.loads((out / "config.json").read_text())["epochs"] == 2
    again = run(*arguments, "--resume")
    assert (again[0], again[2]) == (0, "")
    assert "epoch" not in again[1]
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_as_a_module_it_is_the_same_command(tmp_path):
    """In a process of its own, where nothing but the exit code and the two streams is left."""
    command = [sys.executable, "-m", "mksgn.train", "--data", "kinetics:clips"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert_one_line((done.returncode, done.stdout, done.stderr), "unknown source 'kinetics:clips'")
