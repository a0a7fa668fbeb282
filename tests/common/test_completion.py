"""Shell completion, as bash asks for it; and by the protocol of the other shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mksgn.common import completion, entry
from mksgn.common.completion import SHELLS, scripts, stage_of_line

COMMANDS = ("mksgn", *(f"mksgn-{stage}" for stage in entry.STAGES))
ASK = """
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); "_${1//-/_}_completion" "$1"; echo "${COMPREPLY[*]}"; }
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands of this checkout on the PATH."""
    for command in COMMANDS:
        start = "umbrella" if command == "mksgn" else command.partition("-")[2]
        path = tmp_path / command
        path.write_text(f"#!{sys.executable}\nfrom mksgn.common.entry import {start}\n{start}()\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(entry.__file__).parents[2]))


def test_bash_completes_commands_and_choices(commands):
    lines = ["mksgn ''", "mksgn --completion ''", "mksgn bench com", "mksgn-bench run x.nir --place b"]
    script = 'eval "$(mksgn --completion bash)"\n' + ASK + "".join(f"ask {line}\n" for line in lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "train export deploy bench",
        "bash zsh fish",
        "compare compare-chip",
        "balanced",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_serves_every_command(shell):
    text = scripts(shell, COMMANDS)
    for command in COMMANDS:
        assert f"{completion.variable(command)}=complete_{shell}" in text
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("line", "stage", "becomes"),
    [
        ("mksgn bench run --place ", "bench", "mksgn-bench run --place "),
        ("mksgn export ", "export", "mksgn-export "),
        ("mksgn benc", None, "mksgn benc"),
        ("mksgn bench", None, "mksgn bench"),  # the word is not finished
        ("mksgn --completion ba", None, "mksgn --completion ba"),
    ],
)
def test_a_line_of_the_umbrella_becomes_that_of_the_command(monkeypatch, line, stage, becomes):
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_MKSGN_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_MKSGN_BENCH_COMPLETE", "")
    monkeypatch.setenv("_MKSGN_EXPORT_COMPLETE", "")
    assert stage_of_line(entry.STAGES) == stage
    assert os.environ["_TYPER_COMPLETE_ARGS"] == becomes
    if stage is not None:
        assert os.environ[completion.variable(f"mksgn-{stage}")] == "complete_zsh"
        assert os.environ["COMP_CWORD"] == "2"


def test_another_shell_is_refused(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["mksgn", "--completion", "tcsh"])
    with pytest.raises(SystemExit) as ended:
        entry.umbrella()
    assert ended.value.code == 2
    assert capfd.readouterr().err == "mksgn: --completion 'tcsh': choose one of bash, zsh, fish\n"
