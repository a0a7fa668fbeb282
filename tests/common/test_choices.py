"""Options of a closed set: shown, completed, and nothing else is taken."""

import sys
from typing import Annotated

import pytest

from mksgn.common.choices import beginning, choice
from mksgn.common.console import new_app, run_app


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        app, taken = new_app("Paint."), []

        @app.command()
        def paint(
            colour: Annotated[str | None, choice(values=("red", "blue"), help="of the wall")] = None,
            coats: Annotated[int, choice("--coats", values=(1, 2), help="how many")] = 1,
        ) -> None:
            taken.append((colour, coats))

        monkeypatch.setattr(sys, "argv", ["paint", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_app(app, "paint")
        return ended.value.code, taken, *capsys.readouterr()

    return run


def test_values_are_taken_in_their_type(run):
    assert run()[:2] == (0, [(None, 1)])
    assert run("--colour", "blue", "--coats", "2")[:2] == (0, [("blue", 2)])


def test_help_shows_the_values(run):
    printed = run("--help")[2]
    assert "--colour [red|blue]" in printed
    assert "--coats [1|2]" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--colour", "gr\x1b"), "'gr\\x1b': choose one of red, blue"), (("--coats", "3"), "3: choose one of 1, 2")],
)
def test_another_value_is_one_line(run, arguments, said):
    code, taken, printed, errors = run(*arguments)
    assert (code, taken, printed) == (2, [], "")
    assert said in errors
    assert arguments[0] in errors
    assert errors.count("\n") == 1


def test_completion_offers_what_begins_so():
    assert beginning(("red", "rose", "blue"))("r") == ["red", "rose"]
