"""A made-up command, run as an installed one is."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from mksgn.common.console import new_app, run_app


def run(
    command: Callable[..., Any], arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Return the exit code, and what was printed on stdout and stderr."""
    app = new_app("Paint.")
    app.command()(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["paint", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_app(app, "paint")
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def refused(outcome: tuple[int, list[Any], str, str], option: str, said: str) -> str:
    """Check that an option's value ended the command in one line, before it began; return the line."""
    code, taken, printed, errors = outcome
    assert (code, taken, printed) == (2, [], "")
    assert said in errors
    assert option in errors
    assert errors.count("\n") == 1
    return errors
