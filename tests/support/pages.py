"""Pages of documentation as a reader follows them: their commands, code blocks, links and headings."""

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import typer
import yaml
from typer.testing import CliRunner

from mksgn.common.errors import MksgnError
from tests.support.paths import EXAMPLES, ROOT

STAGES = ("train", "export", "deploy", "bench")
_FENCED = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?: {4}| {6})(mksgn-\w+ .*|mksgn-\w+)$")
_PROGRAM = re.compile(r"^ {4}python (examples/\S+\.py)\b")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Step(NamedTuple):
    """Something to do on a page: `kind` is command, program, python, or the language of a block with a title."""

    kind: str
    text: str
    title: str = ""


def prose(page: Path) -> str:
    """Return a page without its fenced blocks, whose lines become empty."""
    return _FENCED.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    """Return the commands of a page's indented blocks, one a line, with continued lines joined."""
    lines = re.sub(r" +\\\n +", " ", prose(page)).splitlines()
    return [" ".join(found[1].split()) for line in lines if (found := _COMMAND.match(line))]


def steps(page: Path) -> Iterator[Step]:
    """Yield commands, programs of examples/, Python blocks and blocks with a title, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    end = 0
    for block in _FENCED.finditer(text):
        yield from _commands(text[end : block.start()])
        end = block.end()
        language, attributes, content = block.groups()
        title = re.search(r'title="([^"]+)"', attributes)
        if title or language == "python":
            yield Step(language, content, title[1] if title else "")
    yield from _commands(text[end:])


def _commands(text: str) -> Iterator[Step]:
    for line in text.splitlines():
        if found := _COMMAND.match(line):
            yield Step("command", found[1])
        elif found := _PROGRAM.match(line):
            yield Step("program", found[1])


def arguments_of(command: str) -> list[str]:
    """Split a command as a shell does, without its comment."""
    return shlex.split(command, comments=True)


def app(name: str) -> Any:
    """Return the typer app of `mksgn-STAGE`."""
    return import_module(f"mksgn.{name.removeprefix('mksgn-')}.cli").app


@cache
def parser_of(name: str) -> Any:
    """Return the parser of `mksgn-STAGE`, with its subcommands."""
    return typer.main.get_command(app(name))


def call(command: str, codes: Mapping[str, int] = {}) -> str:
    """Run a command in this process and check its exit code: 0, or that of the part of it that `codes` names."""
    name, *arguments = arguments_of(command)
    done = CliRunner().invoke(app(name), arguments)
    code = done.exception.exit_code if isinstance(done.exception, MksgnError) else done.exit_code
    expected = next((code for part, code in codes.items() if part in command), 0)
    assert code == expected, f"{command}\n{done.output}\n{done.exception!r}"
    return done.output


def copy_examples(folder: Path, grid: str, **axes: list[Any]) -> None:
    """Copy examples/ into a folder, for a page that sweeps one of its grids: there these axes are shorter.

    What a sweep does for a point does not depend on their number, which tests/bench/sweep varies.
    """
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__", "runs"))
    content = yaml.safe_load((folder / "examples" / grid).read_text(encoding="utf-8"))
    for name, values in axes.items():
        assert set(values) < set(content["axes"][name])
        content["axes"][name] = values
    (folder / "examples" / grid).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def links(page: Path) -> list[tuple[str, str]]:
    """Return the links of a page to files or headings as (path, anchor); not those to other sites."""
    found = (link.partition("#") for link in _LINK.findall(prose(page)) if "://" not in link)
    return [(path, anchor) for path, _, anchor in found]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them, and those of documented names."""
    documented = set(re.findall(r"^::: (\S+)", prose(page), re.MULTILINE))
    titles = re.findall(r"^#{1,6} +(.+)$", prose(page), re.MULTILINE)
    return documented | {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).strip().lower()).replace(" ", "-") for title in titles
    }


def pages() -> list[Path]:
    """Return all pages: those of docs/, those at the root, and that of the examples."""
    return sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "examples" / "README.md"])
