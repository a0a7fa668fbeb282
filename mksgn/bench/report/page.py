"""Render report.html: one self-contained page for readers who do not know the code.

The template is data/report.html; jinja2 escapes every value. Style and script are inlined, charts
are inline SVG and rasters are data URIs, so the page opens offline. Its Content-Security-Policy
allows no request, and no script but its own, by hash.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from mksgn.bench import numbers
from mksgn.bench.choices import DATA
from mksgn.bench.report import charts, clip, templates
from mksgn.bench.report.answers import answers
from mksgn.bench.report.charts import BarChart, Column, EnergyChart, bar_chart, energy_chart
from mksgn.bench.report.clip import Clip
from mksgn.bench.report.facts import MOST_PREDICTIONS, Facts
from mksgn.bench.report.network import network_chart
from mksgn.bench.report.price_range import price_range
from mksgn.bench.report.timing import between, duration, limited_by, timing_of
from mksgn.bench.step_time import EVENT_WORDS

TEMPLATE, STYLE, SCRIPT = "report.html", "report.css", "report.js"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src "
)


def render(facts: Facts, sample: Clip | str) -> str:
    """Return the page of a run.

    Args:
        facts: What the page states.
        sample: The sample clip with its rasters, or a sentence that says why there is none.
    """
    script = (DATA / SCRIPT).read_text(encoding="utf-8")
    is_clip = isinstance(sample, Clip)
    prices = price_range(facts.record.energy, facts.repriced, facts.reference_mJ if facts.record.student else None)
    context = {
        "prices": prices,
        "answers": answers(facts, prices),
        "timing": timing_of(facts.record),
        "event_words": EVENT_WORDS,
        "sample": sample if is_clip else None,
        "no_sample": sample,
        "view": clip,
        "geometry": charts,
        "energy_chart": energy(facts),
        "network_chart": network_chart(facts.record),
        "layer_chart": layers(facts),
        "theory_chart": theory(facts),
        "limit_chart": limits(facts),
        "core_chart": cores(facts),
        "most_predictions": MOST_PREDICTIONS,
        "style": Markup((DATA / STYLE).read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_data": data_block(sample.script_data) if isinstance(sample, Clip) else None,
        "policy": f"{POLICY}'sha256-{digest(script)}'",
    }
    return templates.render(TEMPLATE, facts, context, FILTERS, autoescape=True)


def unbroken(text: str) -> str:
    """Return a text whose numbers stay on one line with their units."""
    return re.sub(r"(?<=[0-9]) (?=(?:%|[mµnp]?J|[mµn]?s)(?![A-Za-z]))", "\N{NO-BREAK SPACE}", text)


def share(fraction: float | None) -> str:
    """Format as `numbers.share` does, on one line; as filters, this and `percent` replace those of `numbers`."""
    return unbroken(numbers.share(fraction))


def percent(fraction: float) -> str:
    return unbroken(numbers.percent(fraction))


def digest(script: str) -> str:
    """Return a script's sha256 in base64, as a Content-Security-Policy states it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def data_block(values: dict[str, Any]) -> Markup:
    """Return JSON that cannot close the script element that contains it."""
    return Markup(json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def breakable(name: str) -> Markup:
    """Return a name with optional line breaks after its dots and underscores."""
    dots = Markup(".<wbr>").join(name.split("."))
    return Markup("_<wbr>").join(dots.split("_"))


def slug(name: str) -> str:
    """Return a name as a part of an element's id."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


FILTERS = (breakable, slug, between, duration, limited_by, unbroken, share, percent)


def energy(facts: Facts) -> EnergyChart:
    """Draw the energy under every model, with the published energy and its GCN as reference lines."""
    reference, published = facts.reference_mJ, facts.published
    lines = [] if reference is None else [(reference, f"published GCN, over {reference:g} mJ")]
    if published is not None:
        lines.append((published.published, f"published, {published.published:g} mJ"))
    anchors = {name: model.anchor for name, model in facts.models.items() if model.anchor is not None}
    return energy_chart(facts.record.energy, anchors, lines)


def layers(facts: Facts) -> BarChart:
    """Draw firing rate, spikes and synaptic operations of every population."""
    rows = facts.record.layers
    rates = [row.firing_rate for row in rows]
    columns = [Column("Firing rate, per neuron and step", rates, [numbers.share(rate) for rate in rates], "%")]
    for title, counts in (("Spikes", [r.spikes for r in rows]), ("Synaptic operations", [r.syn_ops for r in rows])):
        columns.append(_amounts(title, [number / facts.clips for number in counts]))
    caption = f"Means per {facts.unit}; populations in network order."
    return bar_chart("layers", "Layer by layer", caption, [row.name for row in rows], columns)


def _amounts(title: str, values: Sequence[float]) -> Column:
    return Column(title, values, [numbers.amount(value) for value in values])


def theory(facts: Facts) -> BarChart:
    """Draw measured synaptic operations as bars, with the theory as marks."""
    rows = [row for row in facts.theory.layers if row.theory_sops or row.syn_ops]
    ratios = [numbers.ratio(row.ratio) for row in rows]
    return bar_chart(
        "theory",
        "Theory and measurement",
        f"Synaptic operations per {facts.unit}; the number is measured / theory.",
        [row.name for row in rows],
        [Column("", [row.syn_ops for row in rows], ratios, marks=[row.theory_sops for row in rows])],
        legend=(("measured", "measured: events of this run"), ("theorymark", "theory: the paper's formula")),
    )


def limits(facts: Facts) -> BarChart | None:
    """Draw the share of each limit that the fullest core uses; None without a placement."""
    placement = facts.record.placement
    if placement is None or not placement.limits:
        return None
    shares = [limit.value / limit.max if limit.max else None for limit in placement.limits]
    texts = [
        f"{numbers.amount(limit.value)}, limit not published" if share is None else numbers.share(share)
        for limit, share in zip(placement.limits, shares, strict=True)
    ]
    names = [limit.name for limit in placement.limits]
    title = f"The fullest core of {placement.chip}"
    return bar_chart("limits", title, "Share of each limit.", names, [Column("", shares, texts, "%", end=1.0)])


def cores(facts: Facts) -> BarChart | None:
    """Draw the cores of every population, those of its product units included; None without a placement."""
    rows = [layer for layer in facts.record.layers if layer.cores]
    if not rows:
        return None
    return bar_chart(
        "cores",
        "Cores of each population",
        "One square is one core. Attention's product units are included.",
        [layer.name for layer in rows],
        [Column("", [layer.cores for layer in rows], [str(layer.cores) for layer in rows], squares=True)],
    )
