"""Hooks of mkdocs (mkdocs.yml): the pages of docs/, written for a reader of the repository, as a site.

A link to a file outside docs/ leads to a page with the file's text, so that no address of a repository is needed.
A Markdown file becomes a page like any other, and so does a notebook, with its outputs. List items are indented by
four, as Python-Markdown requires.
"""

import json
import os.path
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)\s]*)?\))")
ITEM = re.compile(r"( *)(?:[-*]|\d+\.) +(?=\S)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".sh": "bash", ".toml": "toml"}
IN_NAV = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # pages from outside docs/ that mkdocs.yml names

_origin: dict[str, PurePosixPath] = {}  # where a page's text lies in the repository, by its place in the site


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file outside docs/ that a page links to."""
    from mkdocs.structure.files import File  # here: what else is in this file works without mkdocs

    _origin.clear()
    waiting = [(file.src_uri, PurePosixPath("docs", file.src_uri)) for file in files.documentation_pages()]
    waiting += [(name, PurePosixPath(name)) for name in IN_NAV]
    while waiting:
        place, path = waiting.pop()
        if place in _origin:
            continue
        _origin[place] = path
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=_text_of(path)))
        if path.suffix in (".md", ".ipynb") or (ROOT / path).is_dir():
            text = _text_of(path)
            linked = (_repository_path(path, target) for target in LINK.findall(text))
            waiting += [(_place(target), target) for target in linked if target is not None and _is_outside(target)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to the pages of this site, and indent list items by four."""
    path = _origin.get(page.file.src_uri)
    if path is None:
        return markdown
    here = PurePosixPath(page.file.src_uri).parent

    def relink(match: re.Match[str]) -> str:
        target = _repository_path(path, match[1])
        return match[1] if target is None else os.path.relpath(_place(target), here)

    return indented(LINK.sub(relink, markdown))


def indented(markdown: str) -> str:
    """Indent what belongs to a list item by four per level, where Markdown elsewhere takes the marker's width."""
    lines: list[str] = []
    columns: list[int] = []  # at which the text of the open items begins
    fenced = parted = False  # parted: the innermost item has more than one paragraph
    for line in markdown.splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        while text and not fenced and columns and indent < columns[-1]:
            columns.pop()
        outer = columns[-1] if columns else 0
        item = None if fenced else ITEM.match(line)
        if item and indent - outer < 4:
            if parted and lines[-1]:
                lines.append("")  # otherwise it would continue the paragraph before
            parted = False
        else:
            item = None
            parted |= not text and bool(columns)
        lines.append(" " * 4 * len(columns) + line[min(outer, indent) :] if text else "")
        if text.startswith("```"):
            fenced = not fenced
        if item:
            columns.append(item.end())
    return "\n".join(lines) + "\n"


def _repository_path(page: PurePosixPath, target: str) -> PurePosixPath | None:
    """Return the path of a link's target; None if there is no such file, about which mkdocs complains."""
    folder = page if (ROOT / page).is_dir() else page.parent
    path = PurePosixPath(os.path.normpath(folder / target))
    return path if ".." not in path.parts and (ROOT / path).exists() else None


def _is_outside(path: PurePosixPath) -> bool:
    return path.parts[0] != "docs"


def _place(path: PurePosixPath) -> str:
    """Return where a file of the repository lies in the site."""
    if not _is_outside(path):
        return str(path.relative_to("docs"))
    if (ROOT / path).is_dir():
        return f"source/{path}/index.md"
    return str(path) if str(path) in IN_NAV else f"source/{path}{'' if path.suffix == '.md' else '.md'}"


def _text_of(path: PurePosixPath) -> str:
    """Return the page for a file or a folder; a Markdown file is a page already."""
    if path.suffix == ".md":
        return (ROOT / path).read_text(encoding="utf-8")
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n"
    if (ROOT / path).is_dir():
        names = sorted(each.name for each in (ROOT / path).iterdir() if each.is_file())
        return head + "".join(f"- [{name}]({name})\n" for name in names)
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n\n".join(notebook_parts(json.loads(text))) + "\n"
    return f"{head}````{LANGUAGES.get(path.suffix, 'text')}\n{text}````\n"


def notebook_parts(notebook: dict[str, Any]) -> Iterator[str]:
    """Yield a notebook's cells and their outputs as Markdown; pictures are part of the page."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                yield f"```text\n{''.join(output['text']).rstrip()}\n```"
            elif picture := output.get("data", {}).get("image/png"):
                yield f'<img alt="output" src="data:image/png;base64,{"".join(picture.split())}">'
