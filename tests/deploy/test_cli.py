"""mksgn-deploy on graphs from elsewhere: quantised, described, checked, run on arrays, and outputs
in a file.
"""

import json

import nir
import numpy as np
import pytest
from typer.testing import CliRunner

from mksgn.common.errors import BadInputError
from mksgn.common.lock import locked
from mksgn.deploy import compile_graph, run
from mksgn.deploy.cli import app
from mksgn.deploy.errors import ChipLimitError, DeployError
from mksgn.deploy.program.text import text
from mksgn.export.graph import files
from tests.support.full_disk import content_of, full_disk
from tests.support.graphs import chain, inp, lif, linear, out
from tests.support.paths import EXAMPLES
from tests.support.refusals import refusal

F32 = np.float32


@pytest.fixture
def foreign(tmp_path):
    """A recurrent IF network with r = 1, as most files with IF have it, and spikes for it."""
    rng = np.random.default_rng(0)
    weight = lambda *shape: rng.normal(0.2, 0.6, shape).astype(F32)  # noqa: E731
    net = chain(
        ("x", inp(5)),
        ("d", linear(weight(8, 5))),
        ("a", nir.IF(np.ones(8, F32), np.ones(8, F32), np.zeros(8, F32))),
        ("e", linear(weight(8, 8))),
        ("b", lif(8, threshold=0.4)),
        ("f", linear(weight(3, 8))),
        ("y", out(3)),
    )
    net.nodes["back"] = linear(weight(8, 8) / 4)
    net.edges += [("b", "back"), ("back", "b")]
    files.write(net, tmp_path / "net.nir")
    np.save(tmp_path / "x.npy", rng.random((6, 7, 5)) < 0.4)
    return tmp_path


def deploy(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_a_foreign_graph_is_quantised_described_checked_and_run(foreign):
    done = deploy(
        foreign / "net.nir", "--calibration", foreign / "x.npy", "--inputs", foreign / "x.npy", "--if-dt", "1",
        "--backend", "emulator", "--describe", "--check", "-o", foreign / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for words in (
        "8-bit weights",
        "agreement",
        "b ↺1",
        "latency 3",
        "neurons per core",
        "6 samples of 7 steps",
        "·1111111222",
    ):
        assert words in done.output
    outputs = np.load(foreign / "run" / "outputs.npz")
    assert outputs["y"].shape == (6, 7, 3)
    manifest = json.loads((foreign / "run" / "manifest.json").read_text())
    assert {"spikes.npz", "outputs.npz", "cores.png"} <= set(manifest["files"])
    assert manifest["data"] == {"source": "x.npy", "split": None, "clips": 6}


def test_an_unquantised_graph_is_described_in_float(foreign):
    done = deploy(foreign / "net.nir", "--describe", "--if-dt", "1")
    assert done.exit_code == 0, done.output
    for words in (
        "the file is not quantised",
        "floating point, number of steps per sample unknown",
        "b ↺1",
        "resets to 0",
    ):
        assert words in done.output


def test_what_the_file_leaves_open_is_said(foreign):
    """The fixture's file names its dt, and its IF has r = 1: the firing rates of both readings are shown."""
    base = foreign / "net.nir", "--precision", "float", "--inputs", foreign / "x.npy", "--backend", "emulator"
    said = " ".join(deploy(*base).output.split())
    assert "time step 0.0001 s, from the file" in said
    assert "reset zero: v = v_reset, as NIR says" in said
    rates = [
        run(compile_graph(foreign / "net.nir", precision="float", if_dt=step), np.load(foreign / "x.npy"))
        .spikes["a"]
        .mean()
        for step in (None, 1.0)
    ]
    assert rates[0] == 0 < rates[1]
    assert f"a: taken as v += r x dt (firing rate {rates[0]:.2%}); r is not 1/dt" in said
    assert f"v += r x (firing rate {rates[1]:.2%}), which is --if-dt 1" in said
    told = " ".join(deploy(*base, "--if-dt", "1", "--reset", "subtract").output.split())
    assert "step of IF and I 1 s (--if-dt)" in told
    assert "warning" not in told
    assert "reset subtract: the next step's v" in told


def test_an_if_of_r_one_over_dt_is_recognised(tmp_path):
    one = np.ones(2, F32)
    node = nir.IF(one / F32(1e-3), one, 0 * one)
    net = chain(("x", inp(2)), ("d", linear(np.eye(2))), ("n", node), ("y", out(2)))
    del net.metadata["dt"]
    files.write(net, tmp_path / "net.nir")
    np.save(tmp_path / "x.npy", np.ones((1, 3, 2)))
    base = tmp_path / "net.nir", "--precision", "float", "--inputs", tmp_path / "x.npy", "--backend", "emulator"
    assert "r is 1/dt, so that v += x" in deploy(*base, "--dt", "1e-3").output
    said = " ".join(deploy(*base).output.split())
    assert "time step 0.0001 s, by --dt or its default; the file gives none" in said
    assert "warning: n: taken as v += r x dt" in said


def test_a_finished_run_stays_until_another_one_is_finished(foreign):
    run_it = (foreign / "net.nir", "--precision", "float", "--inputs", foreign / "x.npy", "--if-dt", "1", "--backend")
    run_it += ("emulator", "-o", foreign / "run")
    assert deploy(*run_it).exit_code == 0
    before = content_of(foreign / "run")
    (foreign / "run" / "notes.txt").write_text("mine")
    again = (*run_it, "--limit", "2")
    message = refusal(lambda: deploy(*again))
    assert (
        "holds a finished run (spikes.npz, outputs.npz, counters.json and 1 more); replace it with --overwrite"
        in message
    )
    with locked(foreign / "run"):
        assert "is writing to it" in refusal(lambda: deploy(*again, "--overwrite"))
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        deploy(*again, "--overwrite")
    assert content_of(foreign / "run") == {**before, "notes.txt": b"mine"}
    done = deploy(*again, "--overwrite")
    assert f"wrote {foreign / 'run' / 'spikes.npz'}, outputs.npz" in done.output.replace("\n", "")
    assert json.loads((foreign / "run" / "manifest.json").read_text())["data"]["clips"] == 2
    assert sorted(content_of(foreign / "run")) == sorted([*before, "notes.txt"])


def test_labelled_arrays_give_an_accuracy_and_a_run_leaves_its_counters(foreign):
    x = np.load(foreign / "x.npy")
    np.savez(foreign / "data.npz", x_train=x, x_test=x[:4], y_test=[0, 1, 2, 0], y_train=np.zeros(6))
    data = f"npz:{foreign / 'data.npz'}"
    done = deploy(
        foreign / "net.nir", "--calibration", data, "--data", data, "--if-dt", "1", "--backend", "emulator",
        "-o", foreign / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    outputs = np.load(foreign / "run" / "outputs.npz")["y"]
    correct = (outputs.sum(1).argmax(1) == [0, 1, 2, 0]).mean()
    assert f"emulator fixed: top-1 {correct:.1%} on 4 samples of 7 steps" in done.output
    counters = json.loads((foreign / "run" / "counters.json").read_text())
    syn_ops = sum(population["syn_ops"] for population in counters["populations"].values()) / 4
    assert f"syn_ops per sample: {syn_ops:,.0f}" in " ".join(done.output.split())
    assert "davies2018-loihi1    >=" in done.output
    assert "counters.json" in json.loads((foreign / "run" / "manifest.json").read_text())["files"]


def test_samples_without_a_time_axis_are_presented_at_each_step(foreign):
    np.save(foreign / "once.npy", np.eye(5))
    words = (
        foreign / "net.nir",
        "--data",
        f"npy:{foreign / 'once.npy'}",
        "--precision",
        "float",
        "--backend",
        "emulator",
    )
    assert "5 samples of 3 steps" in deploy(*words, "--steps", "3").output
    with pytest.raises(DeployError, match=r"samples have no time axis.*give --steps"):
        deploy(*words)


def test_float_and_limit(foreign):
    done = deploy(
        foreign / "net.nir", "--precision", "float", "--inputs", foreign / "x.npy", "--if-dt", "1", "--limit", "2",
        "--backend", "emulator",
    )  # fmt: skip
    assert "emulator float: 2 samples of 7 steps" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "float", "--inputs", "none.npy"], "none.npy: no such file; name a file"),
        (["--calibration", "synthetic"],
         "--calibration synthetic: the file carries no normalisation of skeleton clips; give arrays"),
        (["--data", "synthetic", "--inputs", "x.npy"], "--data and --inputs: give one of them"),
        (["--device", "foo"], "--device foo: not available here"),
        (["--precision", "float", "--print-after", "fixed-point"],
         "--print-after fixed-point: no such pass with --precision float"),
    ],
)  # fmt: skip
def test_missing_or_contradictory_options_are_refused(foreign, words, message):
    with pytest.raises(BadInputError, match=message.replace("(", r"\(")):
        deploy(foreign / "net.nir", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reset", "soft"], "'--reset': 'soft': choose one of zero, subtract, subtract-at-once"),
        (["--v-init", "rest"], "'--v-init': 'rest': choose one of zero, v_reset, leak"),
        (["--place", "tight"], "'--place': 'tight': choose one of compact, balanced"),
        (["--print-after", "balanced"], "'balanced': choose one of ingest, graph-branches, loops, host-split, fixed-"),
    ],
)
def test_other_values_of_closed_sets_are_refused(foreign, run_command, words, message):
    assert message in run_command("deploy", foreign / "net.nir", *words, code=2).err


def test_the_program_after_a_pass(foreign):
    done = deploy(foreign / "net.nir", "--precision", "float", "--print-after", "loops")
    assert done.exit_code == 0
    printed = []
    compile_graph(
        foreign / "net.nir",
        precision="float",
        after=lambda name, program: printed.append(text(program)) if name == "loops" else None,
    )
    assert done.output == printed[0]


def test_pickled_arrays_are_refused(foreign):
    np.save(foreign / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInputError, match=r"evil\.npy: evil\.npy holds pickled Python objects"):
        deploy(foreign / "net.nir", "--precision", "float", "--inputs", foreign / "evil.npy")


CHIP = EXAMPLES / "own_chip" / "chip.yaml"


def test_the_check_has_three_outcomes(foreign):
    """All limits known and kept; kept as far as they are published; exceeded, which is exit code 4."""
    given = (foreign / "net.nir", "--calibration", foreign / "x.npy", "--if-dt", "1", "--check", "--chip")
    done = deploy(*given, "loihi1")
    assert (done.exit_code, "fits loihi1\n" in done.output) == (0, True)
    done = deploy(*given, "loihi2")
    assert done.exit_code == 0
    assert "fits what is published of loihi2; NOT CHECKED, no limit published: input axons per core" in done.output
    done = deploy(*given, "our-chip", "--chip-file", CHIP)
    assert done.exit_code == 0
    assert "fits what is published of our-chip; NOT CHECKED, no limit published: synaptic delay\n" in done.output
    assert "our-chip: synaptic delay 0 of an unpublished limit" in done.output
    with pytest.raises(ChipLimitError, match="of truenorth"):
        deploy(*given, "truenorth")
