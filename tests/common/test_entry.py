"""What the commands say before anything is imported, and `mksgn COMMAND`."""

import sys

import pytest

from mksgn import __version__
from mksgn.common import entry


@pytest.fixture
def run(monkeypatch, capfd):
    def run(*arguments, start=entry.umbrella):
        monkeypatch.setattr(sys, "argv", ["mksgn", *arguments])
        code = 0
        try:
            start()
        except SystemExit as ended:
            code = ended.code
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_the_umbrella_lists_the_commands(run, arguments):
    code, printed, errors = run(*arguments)
    assert (code, errors) == (0, "")
    assert all(f"\n  {stage} " in printed for stage in ("train", "export", "deploy", "bench"))
    assert max(map(len, printed.splitlines())) <= 80


def test_versions_need_no_import(run, monkeypatch):
    monkeypatch.setattr(entry.importlib, "import_module", None)
    assert run("--version") == (0, f"mksgn {__version__}\n", "")
    assert run("bench", "--version") == (0, f"mksgn-bench {__version__}\n", "")
    assert run("--version", start=entry.train) == (0, f"mksgn-train {__version__}\n", "")


def test_an_unknown_command_is_one_line(run):
    code, printed, errors = run("fly\x1b")
    assert (code, printed) == (2, "")
    assert errors == "mksgn: no such command 'fly\\x1b'; choose one of train, export, deploy, bench\n"


@pytest.mark.parametrize("stage", entry.STAGES)
def test_a_command_alone_shows_its_help(run, stage):
    code, printed, errors = run(start=getattr(entry, stage))
    assert (code, errors) == (0, "")
    assert printed.startswith(f"Usage: mksgn-{stage} ")
    assert run(stage, "-h") == (0, printed, "")
