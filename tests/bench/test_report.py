"""mksgn/bench/report: pages that say what is measured, escape what users wrote, survive gaps, and draw each spike where it fell."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel, known_models, price
from mksgn.bench.numbers import amount, count, counted, fraction, millijoule, ratio, rounded, share
from mksgn.bench.record import Record
from mksgn.bench.record_io import load, save
from mksgn.bench.report import markdown, page
from mksgn.bench.report.charts import LEFT, RIGHT, SQUARES, Column, bar_chart, energy_chart
from mksgn.bench.report.clip import Clip, clip_of, project
from mksgn.bench.report.facts import MOST_PREDICTIONS, facts_of
from mksgn.bench.report.raster import ROWS_PER_JOINT, raster
from mksgn.bench.report.write import write_report
from mksgn.bench.theory import theory_of
from mksgn.bench.verdicts import compare_with_published
from mksgn.common.errors import BadInputError
from mksgn.train.skeletons import graph
from tests.support.paths import ROOT
from tests.support.records import changed, small_run

VOID = {"meta", "br", "wbr", "img", "input"}
GRAPH = graph("nw-ucla-20")
FRAMES, STEPS = 6, 4
POPULATIONS = {  # as a student has them: channels, behind a stride, and attention's queries and keys
    "encoder": (3, FRAMES, 20),
    "blocks.0.conv": (50, FRAMES // 2, 20),
    "blocks.0.attention.m": (2, FRAMES, 20, 20),
}


def full_run(run: dict[str, Any] | None = None, network: str = "demo") -> Record:
    """The small run with its energies and claims."""
    record = Record.model_validate(run or small_run())
    energy = [price(model, record.totals, steps=record.execution.steps) for model in known_models()]
    claims = compare_with_published(
        energy, theory_of(record).energy_mJ, network, data=record.data, accuracy=record.accuracy
    )
    return record.model_copy(update={"energy": energy, "claims": claims})


def trains(seed: int = 0) -> dict[str, np.ndarray]:
    """By population: (bodies, S, *shape) bool, two bodies, about one spike in ten."""
    rng = np.random.default_rng(seed)
    return {name: rng.random((2, STEPS, *shape)) < 0.1 for name, shape in POPULATIONS.items()}


def write_spikes(path: Path, spikes: dict[str, np.ndarray], joints: np.ndarray | None) -> None:
    arrays = {f"trains/{name}": np.packbits(train) for name, train in spikes.items()}
    arrays |= {f"shape/{name}": np.array(train.shape) for name, train in spikes.items()}
    np.savez(path, **arrays, **({} if joints is None else {"sample/joints": joints}))


def moving_joints() -> np.ndarray:
    """(FRAMES, 20, 3) metres: joints anywhere in a metre, all walking half a metre to the right."""
    still = np.random.default_rng(1).random((20, 3))
    return (still + np.linspace(0, 0.5, FRAMES)[:, None, None] * np.array([1.0, 0, 0])).astype(np.float32)


def manifest() -> dict[str, Any]:
    """What the pages take from a manifest."""
    return {
        "schema": "mksgn.manifest/1",
        "data": {
            "graph": GRAPH.name,
            "classes": ["wave", "sit down", "throw"],
            "clips": ["clip-0", "clip-1", "clip-2", "clip-3"],
            "labels": [0, 0, 1, 1],
        },
        "predictions": [0, 0, 1, 2],
        "machine": {"processor": "a processor", "cores": 2, "memory_GiB": 7.8},
        "files": {"run.json": "c" * 64, "spikes.npz": "d" * 64, "report.html": "e" * 64, "report.md": "f" * 64},
    }


def folder_of_run(folder: Path) -> Path:
    """A run's folder with a sample clip: run.json, spikes.npz and a sealed manifest.json."""
    save(full_run(), folder / "run.json")
    write_spikes(folder / "spikes.npz", trains(), moving_joints())
    unsealed = json.dumps({**manifest(), "sha256": "0" * 64}, indent=2) + "\n"
    seal = hashlib.sha256(unsealed.encode()).hexdigest()
    (folder / "manifest.json").write_text(unsealed.replace("0" * 64, seal))
    return folder


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order; collects the text and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
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
        self.text += "" if self.open[-1:] in (["style"], ["script"]) else data


def html_of(record: Record, given: dict[str, Any] | None = None, sample: Clip | str = "No clip.") -> str:
    return page.render(facts_of(record, given or {}), sample)


def text_of(record: Record, given: dict[str, Any] | None = None, sample: Clip | str = "No clip.") -> str:
    return " ".join(Balanced(html_of(record, given, sample)).text.split()).replace("\N{NO-BREAK SPACE}", " ")


def tables_of(text: str) -> list[list[list[str]]]:
    """Tables of a Markdown text: rows of cells, as a reader of GitHub's Markdown sees them."""
    tokens, found = MarkdownIt("commonmark").enable("table").parse(text), []
    for before, token in zip([*tokens], tokens[1:], strict=False):
        if before.type == "table_open":
            found.append([])
        elif before.type == "tr_open":
            found[-1].append([])
        if before.type in ("th_open", "td_open"):
            plain = "".join(child.content for child in token.children or [])
            found[-1][-1].append(plain)
    return found


@pytest.fixture
def run_folder(tmp_path):
    return folder_of_run(tmp_path)


def test_both_reports_lie_beside_their_record(run_folder):
    paths = write_report(run_folder)
    assert paths == [run_folder / "report.html", run_folder / "report.md"]
    assert paths[0].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths[1].read_text(encoding="utf-8").startswith("## MK-SGN run: `model.nir` on synthetic\n")
    names = ["manifest.json", "report.html", "report.md", "run.json", "spikes.npz"]
    assert sorted(each.name for each in run_folder.iterdir()) == names
    with pytest.raises(BadInputError, match="No such file"):
        write_report(run_folder / "absent")


def test_a_report_before_its_manifest_is_the_one_after_it(run_folder, tmp_path_factory):
    """The manifest comes last, with the reports' hashes; writing them again must change nothing."""
    after = [path.read_bytes() for path in write_report(run_folder)]
    (run_folder / "manifest.json").unlink()
    unfinished = manifest()
    for name in ("report.html", "report.md"):
        unfinished["files"].pop(name)
    before = [path.read_bytes() for path in write_report(run_folder, manifest=unfinished)]
    assert before == after


def test_a_changed_manifest_or_broken_spikes_are_refused(run_folder):
    (run_folder / "spikes.npz").write_bytes(b"PK nothing")
    with pytest.raises(BadInputError, match=r"spikes\.npz: not readable as the spikes of a run"):
        write_report(run_folder)
    text = (run_folder / "manifest.json").read_text()
    (run_folder / "manifest.json").write_text(text.replace("a processor", "another"))
    with pytest.raises(BadInputError, match="it was changed since it was written"):
        write_report(run_folder)


def test_other_prices_and_claims_hold_for_the_pages_alone(run_folder):
    before = (run_folder / "run.json").read_bytes()
    mine = EnergyModel.model_validate(
        {"name": "my-chip", "evidence": "measured", "source": "bench 7", "prices_pJ": {"synaptic_op": 1e6}}
    )
    figure = {"name": "my figure", "quantity": "energy", "value": 2.0, "unit": "mJ", "version": "1", "grade": "own"}
    figure |= {"source": "us", "energy_model": "my-chip"}
    paths = write_report(run_folder, models=[mine], claims=[Published.model_validate(figure)])
    html, text = (path.read_text() for path in paths)
    for words in (Balanced(html).text, text):
        assert "my-chip" in words
        assert "keras-spiking-loihi" in words  # what the record states besides
        assert "≥ 3" in words  # 3000 synaptic operations at a microjoule each; the rest has no price
        assert "does not hold under my-chip: at least 3.00 mJ" in words
        assert "energy per sample, v5" in words
    assert (run_folder / "run.json").read_bytes() == before
    judged = facts_of(load(run_folder), {}, claims=published_claims())
    assert judged.record.claims == load(run_folder).claims  # the same figures, judged again


def test_the_summary_says_the_run_in_six_figures():
    text = text_of(full_run()).split("What is theory, what is measured")[0]
    for part in (
        "75.0 % of the clips recognised, with 200 spikes and 3,000 synaptic operations per clip",
        "3 of 4 clips",
        "run by Lava in fixed point, 4 time steps per clip",
        "4.87 × 10⁻⁵ mJ priced by horowitz45-fp32; 1.87 × 10⁻⁴ mJ with the first layer at every step",
        "4.92 × 10⁻⁵ mJ the paper's formula on this run's firing rates",
        "0.596 mJ energy per sample, v5: the paper's own network and data",
        "✓ Spike by spike the same as in torch: 4,800 decisions agree",
        "✓ Fits loihi2: 5 cores on 1 chip, no published limit exceeded",
        "No verdict on the paper's network: this run is of the network 'demo', which says nothing about it.",
        "No joule on this page was measured on a chip.",
    ):
        assert part in text, part


def test_every_section_shows_its_part_of_the_record():
    text = text_of(full_run(), manifest())
    for part in (
        "davies2018-loihi1 simulated ≥",
        "1.661 mJ, PilotNet SNN",
        "davies2018-loihi1 15.6 55 %",
        "blocks.0.conv 4 × 5 × 5 conv 100 25.0 % 100 2.0 % 1.0 % 1,750",
        "encoder 4 × 5 × 5 encoder, on the host",
        "blocks.0.conv 50.0 % 4,000 2,000 1,750 0.875",
        "encoder analog 10,000 10,000 MACs",
        "Strict: every layer whose input is not binary is multiply-accumulates, at each step 1.87 × 10⁻⁴",
        "our teacher of the preset demo: 10 layers, 2 streams, 5,000 parameters, 2.00 million multiply-accumulates",
        "the paper's comparison: both in FP32 horowitz45-fp32 horowitz45-fp32 0.00920 4.87 × 10⁻⁵ 99.5 % less",
        "sit down 0 1 1 2 50.0 %",
        "throw 0 0 0 0 no clip",
        "✓ All 4,800 decisions agree with torch",
        "neurons per core 100 8,192 1.2 %",
        "output axons per core 12 not published",
        "blocks.0.attention.m 3 172 222 800 400 812 1,024",
        "miss graph convolution and attention",
        "sha256 " + "a" * 64,
        "median of 3 runs 2 s, from 1.90 to 2.50 s of simulation",
        "processor a processor; cores 2; memory GiB 7.8",
        "python 3.10.14; torch 2.3.1",
        "run.json " + "c" * 64,
        "clip-0 wave wave",
        "clip-3 sit down ✕ throw",
    ):
        assert part in text, part
    assert "e" * 64 not in text  # a page cannot state its own hash


def test_a_single_run_has_no_spread_and_a_dear_student_uses_more():
    run = small_run()
    run["execution"] |= {"repeats": 1, "seconds_min": 2.0, "seconds_max": 2.0}
    run["gcn"]["macs"] = 10.0
    text = text_of(full_run(run))
    assert "2 s of simulation" in text
    assert "median of" not in text
    assert re.search(r"horowitz45-fp32 horowitz45-fp32 \S+ × 10⁻\S+ \S+ × 10⁻\S+ [\d,]+.* % more", text)
    assert "Beside an ordinary network" not in text_of(full_run({**run, "gcn": None}))


def test_the_page_fetches_nothing_and_runs_its_own_script_alone(run_folder):
    html = write_report(run_folder)[0].read_text(encoding="utf-8")
    parsed = Balanced(html)
    assert not {"link", "iframe", "object", "embed", "form"} & set(parsed.tags)
    assert not {"srcset", "onload", "onclick", "onerror"} & {name for name, _ in parsed.attributes}
    assert all((value or "").startswith("data:image/png;base64,") for name, value in parsed.attributes if name == "src")
    assert all((value or "").startswith("#") for name, value in parsed.attributes if name == "href")
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html
    targets = {value for name, value in parsed.attributes if name == "id"}
    assert {(value or "")[1:] for name, value in parsed.attributes if name == "href"} <= targets
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = next(value for name, value in parsed.attributes if name == "content" and "default-src" in (value or ""))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "script-src &#39;none&#39;" in html_of(full_run())  # no clip, no script
    assert "<script" not in html_of(full_run())


def test_charts_are_well_formed_and_stay_inside_their_frame():
    drawings = [
        ElementTree.fromstring(text) for text in re.findall(r"<svg class=.*?</svg>", html_of(full_run()), re.DOTALL)
    ]
    assert len(drawings) == 5  # layers, theory, energy, limits, cores
    for drawing in drawings:
        width, height = map(float, drawing.attrib["viewBox"].split()[2:])
        assert drawing.attrib["role"] == "img"
        assert drawing.attrib["aria-label"]
        for node in drawing.iter():
            for names, most in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
                assert all(0 <= float(node.attrib.get(name, 0)) <= most for name in names)
            assert float(node.attrib.get("width", 0)) >= 0


HOSTILE = "<script>alert('x')</script>\"&|\n`x`"


@pytest.mark.parametrize(
    "path",
    ["model.file", "data.source", "data.split", "layers.1.name", "layers.1.kind", "parity.against", "placement.chip"],
)
def test_what_a_user_wrote_is_escaped(path):
    record = full_run(changed(path, HOSTILE))
    html = html_of(record)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    Balanced(html)
    text = markdown.render(facts_of(record, {}))
    assert "<script" not in text.replace("\\<", "")
    plain = markdown.render(facts_of(full_run(), {}))
    assert [[len(row) for row in table] for table in tables_of(text)] == [
        [len(row) for row in table] for table in tables_of(plain)
    ]  # no cell was broken


def test_names_of_classes_clips_tools_and_limits_are_escaped(run_folder):
    run = changed("accuracy.per_class", {"<i>": 1.0, "b": None, "c": 0.5})
    run["environment"] = {"<b>": "</dd>"}
    run["placement"]["limits"][0]["name"] = "<u>"
    given = manifest()
    given["data"] |= {"clips": ["</script><i>"] * 4, "classes": ["<i>", "b", "c"]}
    given["machine"] = {"<s>": "<s>"}
    given["files"] = {"<em>": "<s>"}
    clip = clip_of(run_folder, given)
    parsed = Balanced(html_of(full_run(run), given, clip))
    assert not {"i", "b", "u", "s"} & set(parsed.tags)
    assert parsed.tags.count("em") == 1  # the template's own


def test_data_for_the_script_cannot_end_its_element():
    block = page.data_block({"name": "</script><!--"})
    assert "<" not in block
    assert json.loads(block) == {"name": "</script><!--"}


def test_mismatches_and_exceeded_limits_stand_out():
    run = changed("parity", {"against": "snntorch", "decisions": 4_800, "mismatches": 1_200, "first": None})
    run["parity"]["first"] = {"layer": "blocks.0.conv", "clip": 2, "step": 3}
    run["placement"]["limits"][0]["value"] = 9_000
    text = text_of(full_run(run))
    assert "✕ 1,200 of 4,800 decisions differ from snntorch" in text
    assert "The first: layer blocks.0.conv, clip 2, step 3." in text
    assert "✕ Does not fit loihi2: neurons per core exceeded" in text
    assert "neurons per core 9,000 8,192 109.9 % ✕ exceeded" in text
    assert 'class="over"' in html_of(full_run(run))
    assert 'class="over"' not in html_of(full_run())


def test_a_record_with_gaps_still_makes_its_pages():
    run = small_run()
    gaps = {"accuracy": None, "parity": None, "placement": None, "seed": None, "parents": [], "gcn": None}
    bare = Record.model_validate({**run, **gaps, "layers": []})
    text = text_of(bare)
    for part in (
        "the data have no labels",
        "This record prices nothing",
        "lays no published figure beside the run",
        "was not compared",
        "was not placed",
        "no manifest.json",
    ):
        assert part in text
    short = markdown.render(facts_of(bare, {}))
    for part in ("the data have no labels", "prices nothing", "no published figure", "was not compared", "not placed"):
        assert part in short
    silent = {name: 0 for name in run["totals"] if run["totals"][name] is not None}
    assert "0 spikes and 0 synaptic operations" in text_of(full_run({**run, "totals": silent}))


def test_of_very_many_predictions_the_page_shows_the_first():
    given = manifest()
    many = MOST_PREDICTIONS + 5
    given["data"] |= {"clips": [f"clip-{number}" for number in range(many)], "labels": [0] * many}
    given["predictions"] = [0] * many
    text = text_of(full_run(), given)
    assert f"clip-{MOST_PREDICTIONS - 1} " in text
    assert f"clip-{MOST_PREDICTIONS} " not in text
    assert "The first 1,000 of 1,005" in text


def test_the_paper_preset_is_laid_beside_the_paper():
    assert "Our reconstruction of the paper's network" in text_of(full_run(network="paper"))


def test_the_markdown_has_the_pages_facts_in_tables():
    text = markdown.render(facts_of(full_run(), manifest())).replace("\N{NO-BREAK SPACE}", " ")
    tables = tables_of(text)
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    wanted = ["Claims", "Energy", "Beside an ordinary network", "Layers", "Classes", "Parity", "Placement"]
    assert headings == [*wanted, "Provenance"]
    cells = {row[0]: row for table in tables for row in table}
    assert cells["Accuracy, top-1"][1] == "75.0 % (3 of 4)"
    assert cells["blocks.0.conv"][2:6] == ["100", "25.0 %", "100", "2.0 %"]
    assert cells["blocks.0.attention.m"][-3:] == ["3", "172", "222"]
    assert cells["sit down"] == ["sit down", "2", "50.0 %", "throw"]
    assert cells["torch"] == ["torch", "4,800", "0", "–"]
    assert cells["neurons per core"] == ["neurons per core", "100", "8,192", "1.2 %"]
    assert cells["run.json"][1] == "sha256 " + "c" * 64
    assert cells["horowitz45-fp32"][2] == "4.87 × 10⁻⁵"
    assert [row[0] for row in tables[1][1:]] == [f"{c.name} ({c.source})" for c in full_run().claims]
    assert "report.html" not in cells


def test_a_raster_has_each_spike_at_its_joint_neuron_frame_and_step(run_folder):
    spikes = trains()["encoder"][0]  # (S, C, T, V)
    found = raster(run_folder / "spikes.npz", "encoder")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.image.partition(",")[2]))).convert("RGBA"))
    assert image.shape[:2] == (20 * 3, FRAMES * STEPS)
    for joint in range(20):
        for neuron in range(3):
            opacity = image[joint * 3 + neuron, :, 3].reshape(FRAMES, STEPS)
            assert np.array_equal(opacity == 255, spikes[:, neuron, :, joint].T)
            assert set(np.unique(opacity)) <= {0, 255}
    assert np.array_equal(found.fired, spikes.any(0).sum(0))
    assert np.array_equal(found.spikes, spikes.sum((0, 1, 3)))


def test_many_neurons_share_rows_and_attention_is_read_by_its_queries(run_folder):
    found = raster(run_folder / "spikes.npz", "blocks.0.attention.m")
    spikes = trains()["blocks.0.attention.m"][0]  # (S, heads, T, query, key)
    assert (found.neurons, found.group, found.frames) == (40, 40 // ROWS_PER_JOINT, FRAMES)
    assert np.array_equal(found.fired, spikes.any(0).sum((0, 3)))
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.image.partition(",")[2]))).convert("RGBA"))
    pairs = spikes.transpose(3, 1, 4, 2, 0).reshape(20 * ROWS_PER_JOINT, 2, FRAMES * STEPS)  # head, key: a channel
    assert np.array_equal(image[..., 3] > 0, pairs.any(1))
    assert np.array_equal(image[..., 3] == 255, pairs.all(1))


def test_a_sample_clip_is_drawn_upright_at_one_scale(run_folder):
    joints = moving_joints()
    points = project(joints)
    clip = clip_of(run_folder, manifest())
    assert isinstance(clip, Clip)
    assert np.array_equal(clip.points, points)
    assert clip.frames == FRAMES
    right, down = np.diff(points[..., 0], axis=0), np.diff(points[..., 1], axis=0)
    assert (right > 0).all()  # all walk to the right
    assert np.allclose(right, right.mean(), atol=0.11)  # by as much in every frame
    assert (down == 0).all()
    assert points[0, joints[0, :, 1].argmax(), 1] == points[0, :, 1].min()  # the highest joint is on top
    assert [each.name for each in clip.rasters] == list(POPULATIONS)
    assert len(clip.bones) == 19
    shown = clip.rasters[0]
    busiest = int(shown.fired[2].argmax())
    assert clip.captions(shown)[2].endswith(
        f"most neurons fired at: {GRAPH.joints[busiest]} ({shown.fired[2].max()} of 3)"
    )
    text = text_of(full_run(), manifest(), clip)
    assert "The first clip, clip-0: wave, recognised; its first body." in text
    assert "50 neurons at each joint; 3 share a row" in text
    assert "3 frames: a stride makes one of 2 of the clip's, 4 steps in each" in text


def test_where_there_is_no_clip_one_sentence_says_why(tmp_path):
    assert clip_of(tmp_path, manifest()) == "There is no clip to show: the folder has no spikes.npz."
    path = tmp_path / "spikes.npz"
    write_spikes(path, trains(), None)
    assert "no joints of a sample clip" in str(clip_of(tmp_path, manifest()))
    write_spikes(path, trains(), moving_joints()[:, :7])
    assert "(6, 7, 3), do not fit the graph nw-ucla-20" in str(clip_of(tmp_path, manifest()))
    write_spikes(path, trains(), moving_joints())
    assert "names no skeleton graph that is known here (None)" in str(clip_of(tmp_path, {}))
    write_spikes(path, {"dense": np.ones((1, STEPS, 128), dtype=bool)}, moving_joints())
    reason = clip_of(tmp_path, manifest())
    assert "no population of this network has frames and the 20 joints" in str(reason)
    assert str(reason) in text_of(full_run(), manifest(), reason)


def test_bars_end_where_the_axis_says():
    chart = bar_chart("c", "t", "c", ["a", "b"], [Column("", [180_000.0, 0.0], ["180,000", "0"], marks=[90_000, None])])
    (panel,) = chart.panels
    assert [tick.text for tick in panel.ticks] == ["0", "50 k", "100 k", "150 k", "200 k"]
    first, second = panel.bars
    assert first is not None
    assert second is not None
    assert first.x - LEFT == pytest.approx(0.9 * (panel.ticks[-1].x - LEFT))
    assert first.mark == pytest.approx((first.x + LEFT) / 2)
    assert (second.x, second.mark) == (LEFT, None)
    long = bar_chart("c", "t", "c", ["x" * 90], [Column("", [0.07], ["7 %"], "%"), Column("", [None], ["none"])])
    assert len(long.labels[0].short) < 31
    assert long.labels[0].full == "x" * 90
    assert [tick.text for tick in long.panels[0].ticks] == ["0 %", "5 %", "10 %"]
    assert long.panels[1].bars == (None,)
    assert long.panels[0].ticks[-1].x < long.panels[1].left < RIGHT


def test_a_core_is_a_square_as_long_as_they_can_be_counted():
    few, many = (
        bar_chart("c", "t", "c", ["a"], [Column("", [n], [str(n)], squares=True)]).panels[0].bars[0]
        for n in (SQUARES, SQUARES + 1)
    )
    assert few is not None
    assert many is not None
    assert (few.squares, many.squares) == (SQUARES, 0)


def test_energies_stand_on_one_logarithmic_axis():
    models = {model.name: model for model in known_models()}
    anchors = {name: model.anchor for name, model in models.items() if model.anchor}
    record = full_run()
    chart = energy_chart(record.energy, anchors, [(0.596, "published"), (35, "GCN")])
    assert [row.label.full for row in chart.rows] == list(models)
    by_name = {row.label.full: row for row in chart.rows}
    decade = chart.ticks[1].x - chart.ticks[0].x
    published, gcn = (x for x, _, _, _ in chart.lines)
    assert gcn - published == pytest.approx(decade * np.log10(35 / 0.596))
    paper = by_name["horowitz45-fp32"]
    entry = next(entry for entry in record.energy if entry.model == "horowitz45-fp32")
    assert entry.total_mJ is not None
    assert entry.total_every_step_mJ is not None
    assert published - paper.x == pytest.approx(decade * np.log10(0.596 / entry.total_mJ))
    assert paper.every_step is not None
    assert paper.every_step - paper.x == pytest.approx(decade * np.log10(entry.total_every_step_mJ / entry.total_mJ))
    assert (by_name["davies2018-loihi1"].series, by_name["loihi2-pilotnet"].series) == ("bound", "anchor")


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
    assert [rounded(n).replace("\N{NO-BREAK SPACE}", " ") for n in (38_293, 2_056_188, 7.6e9)] == [
        "38,293",
        "2.06 million",
        "7.60 billion",
    ]
    assert (fraction(0.785), fraction(0.98), ratio(1.0), ratio(None)) == ("78.5 %", "98.0 %", "1.000", "–")
    assert (counted(1, "core"), counted(2_000, "core")) == ("1 core", "2,000 cores")


def test_what_the_pages_are_made_of_is_part_of_the_package():
    names = {path.name for path in (ROOT / "mksgn" / "bench" / "data").iterdir()}
    assert {"report.html", "report_charts.html", "report.css", "report.js", "report.md"} <= names
