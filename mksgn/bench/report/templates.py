"""Render a report's jinja2 template from the facts of a run. The templates are in mksgn/bench/data."""

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from mksgn.bench import numbers
from mksgn.bench.choices import DATA, PAPER_MODEL
from mksgn.bench.gcn import CAVEATS
from mksgn.bench.report.facts import Facts
from mksgn.common.words import counted

FILTERS = (
    numbers.count, numbers.amount, numbers.rounded, numbers.energy, numbers.share, numbers.percent, numbers.words,
    numbers.fraction, numbers.ratio, counted,
)  # fmt: skip


def render(
    template: str, facts: Facts, context: dict[str, Any], filters: tuple[Callable[..., Any], ...], **options: Any
) -> str:
    """Render a template.

    Args:
        template: Its file name in mksgn/bench/data.
        facts: What every report states.
        context: Further variables of the template.
        filters: Further filters of the template, called by their functions' names.
        options: Options of jinja2's Environment, such as autoescape.
    """
    common = {"facts": facts, "record": facts.record, "paper_model": PAPER_MODEL, "caveats": CAVEATS}
    return _load(template, FILTERS + filters, **options).render(common | context).lstrip()


@cache
def _load(template: str, filters: tuple[Callable[..., Any], ...], **options: Any) -> Template:
    environment = Environment(
        loader=FileSystemLoader(DATA), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template(template)
