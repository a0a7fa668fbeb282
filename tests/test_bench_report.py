"""bench/report: one self-contained page that says what is measured, escapes what users wrote, and survives gaps."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_bench_record import changed, small_run

from mksgn.bench.claims import evaluate
from mksgn.bench.energy_models import known_models, price
from mksgn.bench.record import Record, save
from mksgn.bench.report import amount, bars, count, millijoule, render, share, write_report
from mksgn.bench.theory import theory_of
from mksgn.train.errors import BadInputError

VOID = {"meta", "br", "wbr", "line", "rect", "circle", "path"}


def full_run(run: dict[str, Any] | None = None, network: str = "demo") -> Record:
    """The small run with its energies and claims."""
    record = Record.model_validate(run or small_run())
    energy = [price(model, record.totals) for model in known_models()]
    claims = evaluate(energy, theory_of(record).energy_mJ, network)
    return record.model_copy(update={"energy": energy, "claims": claims})


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order; collects the text and every attribute."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.text += "" if tag in ("wbr", "sub", "em") else " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open[-1:] == ["style"] else data


def text_of(record: Record) -> str:
    return " ".join(Balanced(render(record)).text.split())


def test_a_report_lies_beside_its_record(tmp_path):
    save(full_run(), tmp_path / "run.json")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "run.json"]
    with pytest.raises(BadInputError, match="No such file"):
        write_report(tmp_path / "absent")


def test_the_summary_says_the_run_in_six_figures():
    text = text_of(full_run()).split("What is theory, what is measured")[0]
    for part in (
        "75.0 % top-1 accuracy, 300 spikes and 3,000 synaptic operations per clip",
        "3 of 4 clips",
        "run by Lava in fixed point, 4 time steps per clip",
        "4.87 × 10⁻⁵ mJ priced by horowitz45-fp32; 1.87 × 10⁻⁴ mJ with the first layer at every step",
        "4.92 × 10⁻⁵ mJ the paper's formula on this run's firing rates",
        "0.596 mJ energy per sample, v5: the paper's own network and data",
        "No verdict on the paper's network: this run is of the network 'demo', which says nothing about it.",
        "No joule on this page was measured on a chip.",
    ):
        assert part in text.replace("\N{NO-BREAK SPACE}", " "), part


def test_every_section_shows_its_part_of_the_record():
    text = text_of(full_run()).replace("\N{NO-BREAK SPACE}", " ")
    for part in (
        "davies2018-loihi1 simulated ≥",
        "host macs, spike messages, host to chip spikes, static power",
        "1.661 mJ, PilotNet SNN",
        "davies2018-loihi1 15.6 55 %",
        "blocks.0.conv 4 × 5 × 5 conv chip 100 100 25.0 % 2.0 % 1,750",
        "blocks.0.conv 50.0 % 4,000 2,000 1,750 0.875",
        "encoder analog 10,000 10,000 MACs",
        "sit down 50.0 %",
        "throw no clip",
        "✓ All 4,800 decisions agree with torch",
        "neurons per core 100 8,192 1.2 %",
        "output axons per core 12 not published",
        "miss graph convolution and attention",
        "sha256 " + "a" * 64,
        "python 3.10.14; torch 2.3.1",
    ):
        assert part in text, part


def test_the_page_fetches_nothing_and_runs_nothing():
    page = render(full_run())
    parsed = Balanced(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert not {"src", "srcset", "onload", "onclick"} & {name for name, _ in parsed.attributes}
    assert all((value or "").startswith("#") for name, value in parsed.attributes if name == "href")
    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page
    targets = {value for name, value in parsed.attributes if name == "id"}
    assert {(value or "")[1:] for name, value in parsed.attributes if name == "href"} <= targets


def test_charts_are_well_formed_and_stay_inside_their_frame():
    drawings = [
        ElementTree.fromstring(text) for text in re.findall(r"<svg class=.*?</svg>", render(full_run()), re.DOTALL)
    ]
    assert len(drawings) == 4
    for drawing in drawings:
        width, height = map(float, drawing.attrib["viewBox"].split()[2:])
        assert drawing.attrib["role"] == "img"
        assert drawing.attrib["aria-label"]
        for node in drawing.iter():
            for name, most in (
                ("x", width),
                ("x1", width),
                ("x2", width),
                ("cx", width),
                ("y", height),
                ("y2", height),
            ):
                assert 0 <= float(node.attrib.get(name, 0)) <= most
            assert float(node.attrib.get("width", 0)) >= 0


@pytest.mark.parametrize(
    "path",
    ["model.file", "data.source", "data.split", "layers.1.name", "layers.1.kind", "parity.against", "placement.chip"],
)
def test_what_a_user_wrote_is_escaped(path):
    page = render(full_run(changed(path, "<script>alert('x')</script>\"&")))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    Balanced(page)


def test_names_of_classes_tools_and_limits_are_escaped():
    run = changed("accuracy.per_class", {"<i>": 1.0})
    run["environment"] = {"<b>": "</dd>"}
    run["placement"]["limits"][0]["name"] = "<u>"
    tags = Balanced(render(full_run(run))).tags
    assert not {"i", "b", "u"} & set(tags)


def test_mismatches_and_exceeded_limits_stand_out():
    run = changed("parity", {"against": "snntorch", "decisions": 4_800, "mismatches": 1_200, "first": None})
    run["parity"]["first"] = {"layer": "blocks.0.conv", "clip": 2, "step": 3}
    run["placement"]["limits"][0]["value"] = 9_000
    text = text_of(full_run(run))
    assert "✕ 1,200 of 4,800 decisions differ with snntorch" in text
    assert "The first: layer blocks.0.conv, clip 2, step 3." in text
    assert "neurons per core 9,000 8,192 109.9 % ✕ exceeded" in text


def test_a_record_with_gaps_still_makes_a_page():
    run = small_run()
    run |= {"accuracy": None, "parity": None, "placement": None, "seed": None, "parents": []}
    bare = text_of(Record.model_validate({**run, "layers": []}))
    for part in (
        "the data have no labels",
        "This record prices nothing",
        "lays no published figure beside the run",
        "was not compared",
        "was not placed",
    ):
        assert part in bare
    silent = {name: 0 for name in run["totals"] if run["totals"][name] is not None}
    assert "0 spikes and 0 synaptic operations" in text_of(full_run({**run, "totals": silent}))


def test_the_paper_preset_is_laid_beside_the_paper():
    assert "Our reconstruction of the paper's network" in text_of(full_run(network="paper"))


def test_bars_end_where_the_axis_says():
    chart = bars("t", "c", ["a", "b"], [[(180_000.0, "180,000", "measured")], [(0.0, "0", "measured")]])
    assert [tick.text for tick in chart.ticks] == ["0", "50 k", "100 k", "150 k", "200 k"]
    assert chart.rows[0].marks[0].x == pytest.approx(chart.left + 0.9 * (chart.right - chart.left))
    assert chart.rows[1].marks[0].x == chart.left
    long = bars("t", "c", ["x" * 90], [[(0.07, "7 %", "measured")]], "%")
    assert len(long.rows[0].label) < 33
    assert long.rows[0].full_label == "x" * 90
    assert [tick.text for tick in long.ticks] == ["0 %", "2 %", "4 %", "6 %", "8 %"]


def test_numbers_are_read_at_a_glance():
    assert (count(1234567), amount(1234567.8), amount(22.5), amount(0.0038), amount(None)) == (
        "1,234,567",
        "1,234,568",
        "22.5",
        "0.00380",
        "–",
    )
    assert millijoule(8.69e-5).replace("\N{NO-BREAK SPACE}", " ") == "8.69 × 10⁻⁵ mJ"
    assert (millijoule(15.6232), share(0.123), share(None)) == ("15.6 mJ", "12.3 %", "–")


def test_the_template_is_part_of_the_package():
    assert (Path(__file__).parents[1] / "bench" / "data" / "report.html").is_file()
