"""Options that count: shown with their range, and refused beyond it; all of the commands have an upper bound."""

import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_origin, get_type_hints

import pytest

import mksgn
from mksgn.common.counts import count
from tests.support import made_commands


@pytest.fixture
def run(capsys):
    def run(*arguments):
        taken = []

        def paint(
            coats: Annotated[int | None, count(most=2000, help="of paint")] = None,
            walls: Annotated[list[int] | None, count("--walls", least=0, most=9, help="their numbers")] = None,
        ) -> None:
            taken.append((coats, walls))

        code, printed, errors = made_commands.run(paint, arguments, capsys)
        return code, taken, printed, errors

    return run


def test_numbers_within_the_range_are_taken(run):
    assert run()[:2] == (0, [(None, None)])
    assert run("--coats", "2000", "--walls", "0", "--walls", "9")[:2] == (0, [(2000, [0, 9])])


def test_help_shows_the_range(run):
    printed = run("--help")[2]
    assert "--coats 1..2000" in printed
    assert "--walls 0..9" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--coats", "2001"), "2001 exceeds 2,000; choose a number from 1 to 2000"),
        (("--coats", "9" * 400), "exceeds 2,000; choose a number from 1 to 2000"),
        (("--coats", "0"), "0 is below 1; choose a number from 1 to 2000"),
        (("--walls", "3", "--walls", "10"), "10 exceeds 9; choose a number from 0 to 9"),
    ],
)
def test_another_number_is_one_line(run, arguments, said):
    assert len(made_commands.refused(run(*arguments), arguments[0], said)) < 400


def modules_with_commands() -> list[str]:
    root = Path(mksgn.__file__).parent
    found = [path for path in root.rglob("*.py") if "\napp = new_app(" in path.read_text(encoding="utf-8")]
    assert len(found) > 8
    return [".".join(("mksgn", *path.relative_to(root).with_suffix("").parts)) for path in sorted(found)]


@pytest.mark.parametrize("module", modules_with_commands())
def test_every_option_that_counts_has_an_upper_bound(module):
    for command in import_module(module).app.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        numbers = {name: hint.__metadata__[0] for name, hint in hints.items() if counts(hint)}
        unbounded = [name for name, option in numbers.items() if option.callback is None and option.max is None]
        assert not unbounded, command.callback


def counts(hint) -> bool:
    """Whether an annotation says int, int | None or list[int] | None."""
    return get_origin(hint) is Annotated and "int" in re.findall(
        r"\w+", str(hint.__origin__).replace("<class 'int'>", "int")
    )
