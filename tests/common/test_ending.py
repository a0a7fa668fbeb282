"""How a command's process speaks and ends: closed streams and pipes, other encodings, Ctrl-C once and twice.

Each case is a process that imports nothing but the standard library, as the first moments of a command do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = "import os, signal, sys; from mksgn.common.ending import *; "
CTRL_C = "os.kill(os.getpid(), signal.SIGINT); "


def ended(script: str, shell: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a script, with redirections by a shell."""
    command = ["sh", "-c", f'"$0" -c "$1" {shell}', sys.executable, START + script]
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=known | environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_never_takes_the_place_of_a_closed_stream(closed, tmp_path):
    script = f"open_streams(); f = open({str(tmp_path / 'f')!r}, 'w'); print(f.fileno() > 2); say('x'); f.write('kept')"
    assert ended(script, closed)[0] == 0
    assert (tmp_path / "f").read_text() == "kept"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_written_in_another_form(encoding):
    code, out, err = ended(r"open_streams(); print('→\udcff'); say('→\udcff')", PYTHONIOENCODING=encoding)
    arrow = "→" if encoding == "utf-8" else r"\u2192"
    assert (code, out, err) == (0, f"{arrow}\\udcff\n", f"{arrow}\\udcff\n")


def test_a_full_disk_is_told_once():
    script = "open_streams(); print('x'); error = written_out(); say(error.strerror); sys.exit(2)"
    assert ended(script, ">/dev/full") == (2, "", "No space left on device\n")


def test_a_closed_pipe_is_not_reported_at_the_end():
    script = "r, w = os.pipe(); os.close(r); os.dup2(w, {0}); os.close(w); "
    out = script.format(1) + "print('x'); sys.exit(141 if isinstance(written_out(), BrokenPipeError) else 0)"
    assert ended(out) == (141, "", "")
    assert ended(script.format(2) + "say('x'); sys.exit(2)") == (2, "", "")


def test_an_interruption_before_the_end_ends_at_once():
    script = "end_at_next_interruption('paint', 'interrupted'); " + CTRL_C + "print('went on')"
    assert ended(script) == (130, "", "paint: interrupted\n")
    silent = "say('first'); end_at_next_interruption('paint'); " + CTRL_C + "print('went on')"
    assert ended(silent) == (130, "", "first\n")


def test_an_interruption_that_is_ignored_stays_ignored():
    """As under nohup, or in the background of a script."""
    script = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN); end_at_next_interruption('paint'); " + CTRL_C + "print('on')"
    )
    assert ended(script) == (0, "on\n", "")


@pytest.mark.parametrize("stage", ["train", "export", "deploy", "bench"])
def test_an_interruption_while_modules_are_imported(stage):
    """A finder stands for the moment: it interrupts when torch is asked for."""
    script = (
        "import importlib.abc, mksgn.common.entry\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'numpy', 'typer'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"mksgn.common.entry.{stage}()"
    )
    assert ended(script) == (130, "", f"mksgn-{stage}: interrupted\n")


WORKING = [
    ("train", "demo"),
    ("export", "model.pt"),
    ("deploy", "model.nir"),
    ("bench", "run", "model.nir", "--data", "synthetic"),
    ("bench", "report", "run"),
    ("bench", "check", "run"),
    ("bench", "compare", "reference", "run"),
    ("bench", "nir-data", "run", "-o", "run.h5"),
    ("bench", "compare-chip", "run"),
    ("bench", "sweep", "grid.yaml"),
]


@pytest.mark.parametrize("arguments", WORKING, ids=lambda arguments: " ".join(arguments[:2]))
def test_an_interruption_while_a_command_imports_its_work(arguments, tmp_path):
    """A library may swallow the exception that Ctrl-C raises; the finder does."""
    for name in ("model.pt", "model.nir"):
        (tmp_path / name).touch()  # or it would be refused before
    script = (
        "import importlib.abc, mksgn.common.entry\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('numpy', 'distributed'):\n"
        "            try: os.kill(os.getpid(), signal.SIGINT)\n"
        "            except KeyboardInterrupt: print('swallowed')\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = {['mksgn', *arguments[1:]]!r}\n"
        f"mksgn.common.entry.{arguments[0]}()"
    )
    assert ended(script) == (130, "", f"mksgn-{arguments[0]}: interrupted\n")
