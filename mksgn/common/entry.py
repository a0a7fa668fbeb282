"""Entry points of the commands, which first set up their streams and Ctrl-C.

What a command works with is imported when it runs (console.importing): torch takes seconds, and help needs none of it.
"""

import importlib
import sys

import mksgn
from mksgn.common import completion
from mksgn.common.ending import ending_at_interruption, open_streams, say
from mksgn.common.quoting import quoted

STAGES = {
    "train": "train MK-SGN, a teacher, or the network of a file of few bits",
    "export": "write a network as quantised NIR or ONNX, and verify it",
    "deploy": "compile any NIR graph and run it in the emulator or in Lava",
    "bench": "run, count, price, compare: a record and its report",
}
USAGE = "Usage: mksgn COMMAND [OPTIONS] …, or mksgn-COMMAND\n\nCommands:\n" + "".join(
    f"  {stage:<7} {text}\n" for stage, text in STAGES.items()
)
COMPLETION = """
  --completion SHELL  script for bash, zsh or fish, e.g. in ~/.bashrc:
                      eval "$(mksgn --completion bash)"
"""


def train() -> None:
    _run("train")


def export() -> None:
    _run("export")


def deploy() -> None:
    _run("deploy")


def bench() -> None:
    _run("bench")


def umbrella() -> None:
    """`mksgn COMMAND …` is `mksgn-COMMAND …`; alone it lists the commands."""
    open_streams()
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if completion.is_asked("mksgn"):
        stage = completion.stage_of_line(STAGES)
        _run(stage) if stage else completion.answer_of_umbrella(STAGES)
    elif first in STAGES:
        sys.argv[:2] = [f"mksgn {first}"]
        _run(first)
    elif first == "--completion":
        _print_completion(sys.argv[2] if len(sys.argv) > 2 else "")
    elif first == "--version":
        print(f"mksgn {mksgn.__version__}")
    elif first in ("-h", "--help"):
        print(f"{USAGE}{COMPLETION}\nOptions of each: mksgn COMMAND --help. Documentation: README.md and docs/")
    else:
        say(f"mksgn: no such command {quoted(first)}; choose one of {', '.join(STAGES)}")
        sys.exit(2)


def _print_completion(shell: str) -> None:
    if shell not in completion.SHELLS:
        say(f"mksgn: --completion {quoted(shell)}: choose one of {', '.join(completion.SHELLS)}")
        sys.exit(2)
    print(completion.scripts(shell, ("mksgn", *(f"mksgn-{stage}" for stage in STAGES))), end="")


def _run(stage: str) -> None:
    open_streams()
    if completion.is_asked(f"mksgn-{stage}"):
        completion.answer_shell()
    if sys.argv[1:] == ["--version"]:
        print(f"mksgn-{stage} {mksgn.__version__}")
        return
    if len(sys.argv) == 1:  # without arguments, show the help and run nothing
        sys.argv.append("--help")
    with ending_at_interruption(f"mksgn-{stage}"):
        main = importlib.import_module(f"mksgn.{stage}.cli").main
    main()
