"""report.md: the page's facts as tables in GitHub's Markdown, for a pull request. The template is data/report.md."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mksgn.bench import numbers
from mksgn.bench.gcn import CAVEATS
from mksgn.bench.numbers import percent
from mksgn.bench.report.facts import Facts
from mksgn.bench.schemas import DATA
from mksgn.bench.theory import PAPER_MODEL

TEMPLATE = "report.md"
# a cell's border; emphasis, code and links; HTML and its entities; mentions and issues
SPECIAL = re.compile(r"([\\|*_`~\[\]<>&#@$])")


def render(facts: Facts) -> str:
    """The Markdown for one run. All that a template prints is escaped, whatever it is."""
    environment = Environment(
        loader=FileSystemLoader(DATA),
        autoescape=False,  # that would be HTML's; `finalize` sees every expression
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("count", "amount", "rounded", "millijoule", "share", "words", "counted", "fraction", "ratio"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters |= {"percent": percent, "code": code}
    context: dict[str, Any] = {"facts": facts, "record": facts.record, "paper_model": PAPER_MODEL, "caveats": CAVEATS}
    return environment.get_template(TEMPLATE).render(context).lstrip()


def escape(value: object) -> str:
    """Text that stays text, on one line and inside a table's cell."""
    if isinstance(value, Markup):
        return value
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def code(value: str) -> Markup:
    """A name as code. What a code span in a table cannot hold becomes escaped text."""
    text = " ".join(value.split())
    return Markup(f"`{text}`") if text and not re.search(r"[`|\\]", text) else Markup(escape(text))
