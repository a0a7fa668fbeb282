"""README and docs as a reader follows them: links, names, commands and code blocks are those of today's code."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from mksgn.bench.sweep import grid
from scripts.commands_page import page as commands_page
from scripts.docs_site import IN_NAV, indented, notebook_parts
from tests.support import example_programs, pages
from tests.support.paths import DOCS, EXAMPLES, ROOT

PAGES = pages.pages()
GENERATED = DOCS / "commands.md"
LAVA = "--backend lava"
PLACEHOLDERS = ("…", "PATH", "HEAD-NODE", "LOGIN-NODE", "TEACHER.PT")  # of a command that shows only its form


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for path, anchor in pages.links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor in pages.anchors(target), f"{page.name}: {path}#{anchor}"


def test_every_page_has_its_place_on_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r": (\S+\.md)$", text, re.MULTILINE)) == sorted(
        [*(page.name for page in DOCS.glob("*.md")), *IN_NAV]
    )


def test_the_site_loads_nothing_from_elsewhere():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config
    assert "http" not in config


def test_list_items_are_indented_as_the_site_wants_them():
    written = "- one\n\n  | a |\n\n  more\n- two:\n\n      code\n\n```yaml\na:\n  - b\n```\n"
    assert indented(written) == (
        "- one\n\n    | a |\n\n    more\n\n- two:\n\n        code\n\n```yaml\na:\n  - b\n```\n"
    )


def test_a_notebook_becomes_a_page():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["1\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBO\nRw0=\n", "text/plain": ["<Figure>"]}},
            ],
        },
    ]
    assert [*notebook_parts({"cells": cells})] == [
        "# Title\ntext",
        "```python\nprint(1)\n```",
        "```text\n1\n```",
        '<img alt="output" src="data:image/png;base64,iVBORw0=">',
    ]


def test_the_page_of_commands_is_what_the_commands_say():
    assert GENERATED.read_text(encoding="utf-8") == commands_page(), "make pages writes it"


def fault_of(command: str) -> str:
    """Have a command's arguments parsed, without running it; return what is wrong with them, or nothing."""
    form = re.sub(r" (…|\[[^\]]*\])", "", command)
    name, *arguments = pages.arguments_of(form)
    group = pages.parser_of(name)
    try:
        context = group.make_context(name, arguments)
        if hasattr(group, "commands"):
            subcommand, command_, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            command_.make_context(subcommand, rest, parent=context)
    except Exception as error:
        incomplete = form != command and type(error).__name__ == "MissingParameter"
        return "" if incomplete else f"{command}: {error}"
    return ""


@pytest.mark.parametrize("page", [page for page in PAGES if pages.commands(page)], ids=lambda page: page.name)
def test_every_command_has_arguments_that_it_takes(page):
    commands = [command for command in pages.commands(page) if " " in command and "[OPTIONS]" not in command]
    assert not [fault for command in commands if (fault := fault_of(command))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_target_of_make_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = {name for names in targets for name in names.split()}
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|^ {4})make ([a-z][\w-]*)", text, re.MULTILINE)) <= known


@cache
def names_in(path: Path) -> frozenset[str]:
    """The functions, classes and methods that a file defines: `name`, or `Class.name`."""
    names = set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            members = node.body if isinstance(node, ast.ClassDef) else []
            names |= {f"{node.name}.{each.name}" for each in members if isinstance(each, ast.FunctionDef)}
    return frozenset(names)


def test_each_equation_of_the_paper_leads_to_code_and_a_test_that_exist():
    rows = [line.split(" | ") for line in (DOCS / "paper-to-code.md").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row) == 4 and "`" in row[1]]
    assert len(rows) > 35
    for equation, code, test, grade in rows:
        for cell, folder in ((code, "mksgn/"), (test, "tests/")):
            path, *names = re.findall(r"`([^`]+)`", cell)
            assert path.startswith(folder)
            assert names, equation
            assert set(names) <= names_in(ROOT / path), f"{path}: {set(names) - names_in(ROOT / path)}"
        assert re.search(r"\[(paper|review|sibling|ours)\]|declared|Lava", grade), equation


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_of_the_code_that_a_page_names_exist(page):
    for path in re.findall(r"`((?:mksgn|tests|scripts|examples|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_pages_name_every_schema_of_the_code():
    pages_of_files = (DOCS / name for name in ("formats.md", "compatibility.md"))
    named = {
        found for page in pages_of_files for found in re.findall(r"`(mksgn\.[\w-]+/\d+)`", page.read_text("utf-8"))
    }
    written = {
        schema
        for path in (ROOT / "mksgn").rglob("*.py")
        for schema in re.findall(r'SCHEMA\b[^=\n]*= "(mksgn\.[\w-]+/\d+)"', path.read_text(encoding="utf-8"))
    }
    assert written <= named


def left_out(command: str) -> bool:
    """Whether a command shows only its form, or needs Lava where there is none."""
    needs_lava = LAVA in command and importlib.util.find_spec("lava") is None
    return needs_lava or any(placeholder in command for placeholder in PLACEHOLDERS)


def follow(names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what pages say, in order and in one folder: files, commands, programs, whose results are checked too, and
    Python in one namespace a page."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(EXAMPLES)
    (folder / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(folder)
    done = 0
    for name in names:
        namespace = {"__name__": "__main__"}
        for step in pages.steps(ROOT / name):
            if step.title:
                (folder / step.title).write_text(step.text)
            elif step.kind == "python":
                exec(compile(step.text, name, "exec"), namespace)
            elif step.kind == "program":
                example_programs.run(step.text, folder)
            elif not left_out(step.text):
                pages.call(step.text)
            done += 1
    assert done


@pytest.mark.parametrize("name", ["docs/new-pass.md", "docs/new-primitive.md"])
def test_a_page_runs_as_written(name, tmp_path, monkeypatch):
    follow([name], tmp_path, monkeypatch)


def test_the_readme_runs_all_commands_of_the_first_page():
    """docs/index.md has two of them, which are not run twice."""
    assert 2 == len(pages.commands(DOCS / "index.md")) == len([*pages.steps(DOCS / "index.md")])
    assert set(pages.commands(DOCS / "index.md")) < set(pages.commands(ROOT / "README.md"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "names",
    [["README.md"], ["docs/tutorial.md"], ["docs/own-network.md", "docs/own-energy-model.md"], ["docs/own-data.md"]],
    ids=lambda names: names[-1],
)
def test_longer_pages_run_as_written(names, tmp_path, monkeypatch):
    follow(names, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_of_clusters_runs_as_written(tmp_path, monkeypatch):
    """On 4 of the 16 points of its grid."""
    pytest.importorskip("distributed", reason="sweeps need the extra mksgn[sweep]")
    assert grid.read(EXAMPLES / "grid.yaml").axes.points == 16
    pages.copy_examples(tmp_path, "grid.yaml", steps=[2], bits=[4])
    follow(["docs/cluster.md"], tmp_path, monkeypatch)
    assert len([*(tmp_path / "runs" / "sweep" / "points").iterdir()]) == 4
