"""Shell completion of the commands and of `mksgn COMMAND`, by typer's own scripts for bash, zsh and fish.

A script asks the command itself what can follow, by an environment variable. typer is imported only when a shell asks.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Annotated

SHELLS = ("bash", "zsh", "fish")
LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")  # variables with the line typed so far: in bash, and in the others


def variable(command: str) -> str:
    """Return the environment variable that is set when the shell asks a command for completions."""
    return f"_{command.replace('-', '_').upper()}_COMPLETE"


def is_asked(command: str) -> bool:
    """Tell whether the shell asks a command for completions."""
    return variable(command) in os.environ


def scripts(shell: str, commands: Iterable[str]) -> str:
    """Return the script that a shell has to read."""
    from typer.completion import get_completion_script

    each = (get_completion_script(prog_name=name, complete_var=variable(name), shell=shell) for name in commands)
    return "\n\n".join(each) + "\n"


def answer_shell() -> None:
    """Let the command that runs next answer the shell."""
    from typer.completion import completion_init

    completion_init()


def stage_of_line(stages: Iterable[str]) -> str | None:
    """Return the stage of the line `mksgn STAGE …`, and change the line to `mksgn-STAGE …`; None if there is none."""
    for name in LINES:
        line = re.fullmatch(rf"\s*\S+\s+({'|'.join(stages)})(\s.*)", os.environ.get(name, ""), re.DOTALL)
        if line is not None:
            stage = line[1]
            os.environ[name] = f"mksgn-{stage}{line[2]}"
            os.environ["COMP_CWORD"] = str(int(os.environ.get("COMP_CWORD", "1")) - 1)
            os.environ[variable(f"mksgn-{stage}")] = os.environ.pop(variable("mksgn"))
            return stage
    return None


def answer_of_umbrella(stages: Mapping[str, str]) -> None:
    """Tell the shell what can follow `mksgn` alone, and exit."""
    import typer

    from mksgn.common.choices import choice

    answer_shell()
    app = typer.Typer(add_completion=False)
    for stage, text in stages.items():
        app.command(stage, help=text)(lambda: None)

    @app.callback()
    def options(
        version: Annotated[bool, typer.Option("--version")] = False,
        completion: Annotated[str, choice(values=SHELLS, help="script of a shell")] = "bash",
    ) -> None:
        """Only the names of the options are needed."""

    app(prog_name="mksgn")
