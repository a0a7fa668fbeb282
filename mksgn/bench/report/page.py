"""report.html: one self-contained page, for readers who do not know the code.

The page is data/report.html (jinja2, everything escaped) with its style and its one script inside; charts are inline SVG, rasters
are images in the page itself. It opens without a network: the Content-Security-Policy lets nothing be fetched, and runs the one
script by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mksgn.bench import numbers
from mksgn.bench.gcn import CAVEATS
from mksgn.bench.numbers import percent
from mksgn.bench.report import charts, clip
from mksgn.bench.report.charts import BarChart, Column, EnergyChart, bar_chart, energy_chart
from mksgn.bench.report.clip import Clip
from mksgn.bench.report.facts import MOST_PREDICTIONS, Facts
from mksgn.bench.schemas import DATA
from mksgn.bench.theory import PAPER_MODEL

TEMPLATE, STYLE, SCRIPT = "report.html", "report.css", "report.js"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src "
)


def render(facts: Facts, sample: Clip | str) -> str:
    """The page for one run. `sample`: a clip with its rasters, or a sentence that says why there is none."""
    environment = Environment(
        loader=FileSystemLoader(DATA), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in (
        "count",
        "amount",
        "rounded",
        "millijoule",
        "share",
        "breakable",
        "words",
        "counted",
        "fraction",
        "ratio",
    ):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["percent"] = percent
    script = (DATA / SCRIPT).read_text(encoding="utf-8")
    is_clip = isinstance(sample, Clip)
    context: dict[str, Any] = {
        "facts": facts,
        "record": facts.record,
        "paper_model": PAPER_MODEL,
        "sample": sample if is_clip else None,
        "no_sample": sample,
        "view": clip,
        "geometry": charts,
        "caveats": CAVEATS,
        "energy_chart": energy(facts),
        "layer_chart": layers(facts),
        "theory_chart": theory(facts),
        "limit_chart": limits(facts),
        "core_chart": cores(facts),
        "most_predictions": MOST_PREDICTIONS,
        "style": Markup((DATA / STYLE).read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_data": data_block(sample.script_data) if isinstance(sample, Clip) else None,
        "policy": POLICY + (f"'sha256-{digest(script)}'" if is_clip else "'none'"),
    }
    return environment.get_template(TEMPLATE).render(context).lstrip()


def digest(script: str) -> str:
    """Base64 of the sha256, as a policy names a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def data_block(values: dict[str, Any]) -> Markup:
    """JSON that cannot end the element that holds it."""
    return Markup(json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def energy(facts: Facts) -> EnergyChart:
    """Every model, the published energy and the GCN that the published reduction is against."""
    lines = (
        [] if facts.reference_mJ is None else [(facts.reference_mJ, f"published GCN, over {facts.reference_mJ:g} mJ")]
    )
    if facts.published is not None:
        lines.append((facts.published.published, f"published, {facts.published.published:g} mJ"))
    anchors = {name: model.anchor for name, model in facts.models.items() if model.anchor is not None}
    return energy_chart(facts.record.energy, anchors, lines)


def layers(facts: Facts) -> BarChart:
    rows, clips = facts.record.layers, facts.clips
    return bar_chart(
        "layers",
        "Layer by layer",
        "Means per clip; populations in the order of the network.",
        [layer.name for layer in rows],
        [
            Column(
                "Firing rate, per neuron and step",
                [layer.firing_rate for layer in rows],
                [numbers.share(layer.firing_rate) for layer in rows],
                "%",
            ),
            Column(
                "Spikes",
                [layer.spikes / clips for layer in rows],
                [numbers.amount(layer.spikes / clips) for layer in rows],
            ),
            Column(
                "Synaptic operations",
                [layer.syn_ops / clips for layer in rows],
                [numbers.amount(layer.syn_ops / clips) for layer in rows],
            ),
        ],
    )


def theory(facts: Facts) -> BarChart:
    rows = [row for row in facts.theory.layers if row.theory_sops or row.syn_ops]
    return bar_chart(
        "theory",
        "Theory against measured",
        "Synaptic operations per clip; the number is measured / theory.",
        [row.name for row in rows],
        [
            Column(
                "",
                [row.syn_ops for row in rows],
                [numbers.ratio(row.ratio) for row in rows],
                marks=[row.theory_sops for row in rows],
            )
        ],
        legend=(("measured", "measured: events of this run"), ("theorymark", "theory: the paper's formula")),
    )


def limits(facts: Facts) -> BarChart | None:
    """What the fullest core uses of each limit."""
    placement = facts.record.placement
    if placement is None or not placement.limits:
        return None
    shares = [each.value / each.max if each.max else None for each in placement.limits]
    texts = [
        f"{numbers.amount(each.value)}, limit not published" if share is None else numbers.share(share)
        for each, share in zip(placement.limits, shares, strict=True)
    ]
    names = [each.name for each in placement.limits]
    title = f"The fullest core of {placement.chip}"
    return bar_chart("limits", title, "Share of each limit.", names, [Column("", shares, texts, "%", end=1.0)])


def cores(facts: Facts) -> BarChart | None:
    """Cores of one body by layer; those of its product units included."""
    rows = [layer for layer in facts.record.layers if layer.cores]
    if not rows:
        return None
    return bar_chart(
        "cores",
        "Cores of each population",
        "A square is a core; with product units, where attention has them.",
        [layer.name for layer in rows],
        [Column("", [layer.cores for layer in rows], [str(layer.cores) for layer in rows], squares=True)],
    )
