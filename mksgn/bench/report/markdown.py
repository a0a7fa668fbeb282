"""Render report.md: the facts of report.html as tables in GitHub's Markdown, for a pull request."""

import re

from markupsafe import Markup

from mksgn.bench.report import templates
from mksgn.bench.report.facts import Facts

TEMPLATE = "report.md"
# a cell's border; emphasis, code and links; HTML and its entities; mentions and issues
SPECIAL = re.compile(r"([\\|*_`~\[\]<>&#@$])")


def render(facts: Facts) -> str:
    """Return the Markdown report of a run. Every value that the template prints is escaped."""
    # autoescape would escape for HTML; `finalize` is called with every expression instead
    return templates.render(TEMPLATE, facts, {}, (code,), autoescape=False, finalize=escape, keep_trailing_newline=True)


def escape(value: object) -> str:
    """Return a value as literal text on one line that cannot break a table cell."""
    if isinstance(value, Markup):
        return value
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def code(value: str) -> Markup:
    """Return a name as a code span, or as escaped text if a code span in a table cannot hold it."""
    text = " ".join(value.split())
    return Markup(f"`{text}`") if text and not re.search(r"[`|\\]", text) else Markup(escape(text))
