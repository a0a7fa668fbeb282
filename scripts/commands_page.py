"""Write docs/commands.md from the commands themselves: python -m scripts.commands_page docs/commands.md

It gives the --help of each command, as tables. tests/test_docs.py compares the page with the code.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

STAGES = ("train", "export", "deploy", "bench")
HEAD = """# Commands

Written from the code by `make pages`: what each command's `--help` says. What the options mean, and when one needs
them, is in the page named with each command.

Exit codes of all: 0 done; 2 bad input or usage, one line on stderr; 3 executions disagree; 4 a chip's limit is
exceeded; 5 a claim or a bound is missed; 130 interrupted.
"""
PAGES = {"train": "training.md", "export": "export.md", "deploy": "deploy.md", "bench": "bench.md"}


def page() -> str:
    """Return the text of docs/commands.md."""
    parts = [HEAD]
    for stage in STAGES:
        app = import_module(f"mksgn.{stage}.cli").app
        more = f"More: [{PAGES[stage]}]({PAGES[stage]})."
        parts += _command(typer.main.get_command(app), f"mksgn-{stage}", 2, None, more)
    return "\n".join(parts)


def _command(command: Any, name: str, level: int, parent: Any, more: str = "") -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent)
    yield f"{'#' * level} {name}\n"
    if command.help:
        yield _prose(command.help)
    if more:
        yield f"{more}\n"
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        yield f"    {name} {' '.join(command.collect_usage_pieces(context))}\n"
    for kind in ("argument", "option"):
        yield from _table(kind, [p for p in command.get_params(context) if p.param_type_name == kind], context)
    for subcommand in subcommands.values():
        if not subcommand.hidden:
            yield from _command(subcommand, f"{name} {subcommand.name}", level + 1, context)


def _table(heading: str, parameters: list[Any], context: Any) -> Iterator[str]:
    records = [record for parameter in parameters if (record := parameter.get_help_record(context))]
    records = [(left, right) for left, right in records if left != "--help"]
    if records:
        rows = "\n".join(f"| `{_cell(left)}` | {_cell(_plain(right))} |" for left, right in records)
        yield f"| {heading} | |\n|---|---|\n{rows}\n"


def _prose(text: str) -> str:
    """Return a docstring's paragraphs, with examples as code after the words before the colon."""
    paragraphs: list[str] = []
    said = ""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        line = " ".join(paragraph.split())
        example = re.fullmatch(r"([^:]*:) ((?:mksgn-\w+|torchrun) .*)", line)
        if example is None:
            paragraphs.append(_plain(line))
            continue
        commands = "\n".join(f"    {each}" for each in re.split(r", then (?=mksgn)", example[2]))
        if example[1] == said:
            paragraphs[-1] += f"\n{commands}"
        else:
            paragraphs += [example[1], commands]
        said = example[1]
    return "\n\n".join(paragraphs) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("*", "\\*").replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
