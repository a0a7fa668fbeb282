"""Options of a closed set: shown, completed, and nothing else is taken."""

from typing import Annotated

import pytest

from mksgn.common.choices import beginning, choice
from tests.support import made_commands


@pytest.fixture
def run(capsys):
    def run(*arguments):
        taken = []

        def paint(
            colour: Annotated[str | None, choice(values=("red", "blue"), help="of the wall")] = None,
            coats: Annotated[int, choice("--coats", values=(1, 2), help="how many")] = 1,
        ) -> None:
            taken.append((colour, coats))

        code, printed, errors = made_commands.run(paint, arguments, capsys)
        return code, taken, printed, errors

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
    made_commands.refused(run(*arguments), arguments[0], said)


def test_completion_offers_what_begins_so():
    assert beginning(("red", "rose", "blue"))("r") == ["red", "rose"]
