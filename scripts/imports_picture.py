"""Draw docs/imports.svg from the imports of mksgn/: python -m scripts.imports_picture docs/imports.svg

tests/test_imports.py compares the picture with the code, and holds the stages to the direction that it shows.
"""

import ast
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "mksgn"
STAGES = {  # in the order in which they may import, and what each leaves for the next
    "common": "files, errors, terminal",
    "train": "clips → model.pt",
    "export": "model.pt → model.nir",
    "deploy": "model.nir → spikes",
    "bench": "spikes → run.json",
}
WIDTH, GAP, LEFT, TOP, LINE = 166, 26, 12, 160, 18
BOX = 224  # height of a stage's box


@cache
def imports(path: Path) -> frozenset[str]:
    """Return every name that a file imports, at any depth of its code.

    Raises:
        ValueError: An import is relative.
    """
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def files() -> list[Path]:
    """Return the files of all stages."""
    return sorted(path for stage in STAGES for path in (ROOT / stage).rglob("*.py"))


def picture() -> str:
    """Return the text of docs/imports.svg."""
    folders: dict[str, Counter[str]] = defaultdict(Counter)  # by stage: number of files in each folder
    between: dict[tuple[str, str], set[str]] = defaultdict(set)  # by importing and imported stage: files that do so
    for path in files():
        stage, *inner, name = path.relative_to(ROOT).parts
        folders[stage][inner[0] if inner else ""] += 1
        for other in {name.split(".")[1] for name in imports(path) if name.startswith("mksgn.")} - {stage}:
            if other in STAGES:
                between[stage, other].add("/".join((stage, *inner, name)))
    boxes = [line for i, stage in enumerate(STAGES) for line in _box(i, stage, folders[stage])]
    arrows = [line for pair, who in sorted(between.items()) for line in _arrow(*pair, sorted(who))]
    width = LEFT * 2 + len(STAGES) * (WIDTH + GAP) - GAP
    return "\n".join((*_head(width, TOP + BOX + 44), *arrows, *boxes, "</svg>\n"))


def _head(width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        'font-size="13" role="img" aria-label="The stages of mksgn and how many files of each import from which">',
        "<!-- drawn by scripts/imports_picture.py -->",
        "<style>.box { fill: #eef3fb; stroke: #35507f; stroke-width: 1.5 } text { fill: #1c2738 } "
        ".b { font-weight: 600; font-size: 15px } .s { font-size: 12px; fill: #4a566a } "
        ".a { fill: none; stroke: #35507f; stroke-width: 1.3; marker-end: url(#h) } "
        ".l { stroke: #b4552d; stroke-dasharray: 5 4 } .n { font-size: 12px; text-anchor: middle; "
        "paint-order: stroke; stroke: #fff; stroke-width: 5px } .w { fill: #b4552d }</style>",
        '<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#35507f"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]


def _box(i: int, stage: str, folders: Counter[str]) -> list[str]:
    x = _left(i)
    total = sum(folders.values())
    lines = [
        f'<rect class="box" x="{x}" y="{TOP}" width="{WIDTH}" height="{BOX}" rx="8"/>',
        f'<text x="{x + 12}" y="{TOP + 24}" class="b">{stage}</text>',
        f'<text x="{x + 12}" y="{TOP + 42}" class="s">{STAGES[stage]}</text>',
        f'<text x="{x + 12}" y="{TOP + 60}" class="s">{total} files</text>',
    ]
    inner = sorted((name, count) for name, count in folders.items() if name)
    return lines + [
        f'<text x="{x + 12}" y="{TOP + 84 + LINE * k}">{name}/ <tspan class="s">{count}</tspan></text>'
        for k, (name, count) in enumerate(inner)
    ]


def _arrow(importing: str, imported: str, who: list[str]) -> list[str]:
    """Draw an arc above the boxes or, if it is against the direction, below them, with the names of the files."""
    names = list(STAGES)
    a, b = names.index(importing), names.index(imported)
    against = b > a
    y = TOP + BOX if against else TOP
    start, end = _port(a, b), _port(b, a)
    rise = (26 if against else 10 + 38 * abs(a - b)) * (1 if against else -1)
    middle = f"C{start} {y + rise} {end} {y + rise} {end} {y}"
    label_y = y + rise * 0.75 + (14 if against else 4)
    text = ", ".join(who) if against else str(len(who))
    return [
        f'<path class="a{" l" if against else ""}" d="M{start} {y} {middle}"/>',
        f'<text class="n{" w" if against else ""}" x="{(start + end) / 2:g}" y="{label_y:g}">{text}</text>',
    ]


def _left(i: int) -> int:
    return LEFT + i * (WIDTH + GAP)


def _port(i: int, other: int) -> int:
    """Return where on box i the arc to another box begins: for nearer boxes, closer to the edge."""
    step, distance = WIDTH // 10, abs(i - other)
    return _left(i) + (step * distance if other < i else WIDTH - step * distance)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
