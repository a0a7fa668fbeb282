"""report.html: its figures, escaping, policy, and records with gaps."""

import base64
import hashlib
import json
import re
from xml.etree import ElementTree

import pytest

from mksgn.bench.record import Record
from mksgn.bench.report import markdown, page
from mksgn.bench.report.clip import clip_of
from mksgn.bench.report.facts import MOST_PREDICTIONS, facts_of
from mksgn.bench.report.write import write_report
from mksgn.bench.step_time import EVENT_WORDS, Binding, PlacementTime, Span, Timing
from tests.support.records import changed, dense_run, small_run
from tests.support.report_pages import Balanced, full_run, html_of, manifest, tables_of, text_of
from tests.support.tiers import one_in

SECTIONS = "How to read this page"


def test_the_first_screen_states_accuracy_counts_energy_fit_and_parity():
    text = text_of(full_run()).split(SECTIONS)[0]
    for part in (
        "3 of 4 clips recognised, with 3,000 synaptic operations per clip",
        "run by Lava in fixed point, 4 time steps per clip",
        "75.0 % 95 % interval (Wilson) 30.1 % to 95.4 %; 3 of 4 clips run.json: accuracy",
        "3,000 one for each synapse that a spike reaches run.json: totals.syn_ops",
        "200 on the chip; the host sends 100 more run.json: totals.spikes",
        "1,212 33.0 % of them in attention's product units run.json: totals.neuron_updates",
        "522 one for each core that a spike is sent to run.json: totals.axon_out",
        "5 on 1 chip of loihi2 run.json: placement",
        "Decisions that differ from torch ✓ 0 of 4,800",
        "the published 0.596 mJ (v5), taken as 662 million synaptic operations, at this model's price",
        "the counted events and the paper's formula, 48.7 nJ and 49.2 nJ, use this run's firing rates",
        "in 0 of 3 layers their ratio rounds to 1.000",
        "nor the published 0.596 mJ, which is of the paper's own network and data",
        "No energy of this network was measured on a chip.",
    ):
        assert part in text, part
    assert "Time on the chip" not in text


def test_every_number_of_the_first_screen_leads_to_its_table_and_names_its_file():
    html = html_of(full_run(), manifest())
    tiles = re.search(r'<dl class="tiles">(.*?)</dl>', html, re.DOTALL)
    assert tiles is not None
    links = re.findall(r'<a class="big" href="#([a-z]+)">', tiles[1])
    assert links == ["classes", "layers", "events", "events", "events", "placement", "parity"]
    assert len(re.findall(r'<dd class="file">run\.json: ', tiles[1])) == len(links)
    assert {f'id="{name}"' for name in links} <= set(re.findall(r'id="[a-z]+"', html))


def test_the_time_on_the_chip_has_a_tile_an_answer_and_a_section():
    """The latency and what binds it, of the placement whose step is shorter; a model without latencies counts."""
    timed = full_run().model_copy(update={"timing": [timing(), timing(latencies=False)]})
    page = text_of(timed)
    first, _, rest = page.partition(SECTIONS)
    for part in (
        "Time on the chip 20.0 to 30.0 µs latency by ours, 3 + 4 steps; streaming, 50,000 to",
        "100,000 clips/s on 1 chip of loihi1 run.json: timing",
        "How fast, and what limits it? ◐ Messages in. Latency 20.0 to 30.0 µs. The busiest core, which sets the time of a "
        "step, is one of blocks.0.conv in 80.0 % of the time, of readout in 20.0 %. ",
        "Modelled by ours on 6 cores on 1 chip of loihi1, balanced. No timing model has latencies of loihi2.",
    ):
        assert part in first, part
    assert "ours (loihi1, declared)" in rest
    assert "counts (loihi2, declared)" in rest
    assert "latency of one body, empty pipeline (3 + 4 steps) 40.0 to 60.0 µs 20.0 to 30.0 µs" in rest
    Balanced(html_of(timed))
    assert "Time on the chip" not in text_of(full_run())


def timing(*, latencies: bool = True) -> Timing:
    """Two placements: the second one's times are half of the first one's."""
    rows = []
    for place, cores, part in (("compact", 5, 1.0), ("balanced", 6, 0.5)):
        times = {
            "step_us": Span(lower=10 * part, estimate=15 * part),
            "longest_step_us": Span(lower=20 * part, estimate=25 * part),
            "latency_us": Span(lower=40 * part, estimate=60 * part),
            "samples_per_second": Span(lower=25_000 / part, estimate=50_000 / part),
            "binding": [
                Binding(population="blocks.0.conv", event="messages_in", share=0.8),
                Binding(population="readout", event="dense", share=0.2),
            ],
        }
        busiest = dict.fromkeys(EVENT_WORDS, 7.0)
        rows.append(
            PlacementTime(place=place, cores=cores, chips=1, busiest=busiest, **(times if latencies else {}))  # type: ignore[arg-type]
        )
    return Timing(
        model="ours" if latencies else "counts", chip="loihi1" if latencies else "loihi2", evidence="declared",
        source="the test", bodies=2, steps=4, latency_steps=3, latencies_ns=dict.fromkeys(EVENT_WORDS, 1.0) if latencies else {},
        barrier_us=0.0, not_counted=[], placements=rows,
    )  # fmt: skip


def test_every_section_shows_its_part_of_the_record():
    text = text_of(full_run(), manifest())
    for part in (
        "davies2018-loihi1 simulated ≥",
        "1.661 mJ, PilotNet SNN",
        "davies2018-loihi1 15.6 mJ 55 %",
        "blocks.0.conv 4 × 5 × 5 conv 100 25.0 % 100 2.0 % 1.0 % 1,750",
        "encoder 4 × 5 × 5 encoder, on the host",
        "blocks.0.conv 50.0 % 4,000 2,000 1,750 0.875",
        "encoder analog 10,000 10,000 MACs",
        "Strict: every layer with a non-binary input charged as multiply-accumulates, at each step 0.187 µJ",
        "our teacher of the preset demo: 10 layers, 2 streams, 5,000 parameters, 2.00 million multiply-accumulates",
        "the paper's comparison: both in FP32 horowitz45-fp32 horowitz45-fp32 9.20 µJ 48.7 nJ 99.5 % less",
        "sit down 0 1 1 2 50.0 %",
        "throw 0 0 0 0 no clips",
        "✓ All 4,800 decisions agree with torch",
        "neurons per core 100 8,192 1.2 %",
        "output axons per core 12 not published ! not checked",
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


def test_a_single_run_has_no_spread_and_a_costlier_student_uses_more():
    run = small_run()
    run["execution"] |= {"repeats": 1, "seconds_min": 2.0, "seconds_max": 2.0}
    run["gcn"]["macs"] = 10.0
    text = text_of(full_run(run))
    assert "2 s of simulation" in text
    assert "median of" not in text
    assert re.search(r"horowitz45-fp32 horowitz45-fp32 46 pJ 48\.7 nJ [\d,]+.* % more", text)
    assert "Comparison with a conventional network" not in text_of(full_run({**run, "gcn": None}))


def test_an_ann_of_the_same_shape_stands_beside_with_the_break_even_rate():
    """2000 MACs per clip at 0.23 pJ; 4 spikes into 100 neurons at 0.03 pJ: 7.67 spikes per synapse at break-even."""
    text = text_of(full_run(dense_run(16)))
    for part in (
        "weights of 8 bits and activations of 3 bits, which tell apart 0 to 4 spikes",
        "this run's is 5.0 %",
        "horowitz45-int8 without 0.460 nJ 12.0 pJ every rate 7.67 –",
        "lemaire2022 without 9.20 nJ 2.56 nJ rates below 97.2 % 3.89 –",
    ):
        assert part in text, part
    assert "ANN of the same shape" not in text_of(full_run())  # a record that did not count accesses to memory


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
    assert 'id="clip-data"' not in html_of(full_run())


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
    one_in(
        3,
        [
            "model.file",
            "data.source",
            "data.split",
            "layers.1.name",
            "layers.1.kind",
            "parity.against",
            "placement.chip",
        ],
    ),
)
def test_user_text_is_escaped(path):
    record = full_run(changed(path, HOSTILE))
    html = html_of(record)
    assert html.count("<script") == 1  # the page's own
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
    assert not {"i", "b", "u", "s", "em"} & set(parsed.tags)


def test_data_for_the_script_cannot_end_its_element():
    block = page.data_block({"name": "</script><!--"})
    assert "<" not in block
    assert json.loads(block) == {"name": "</script><!--"}


def test_mismatches_and_exceeded_limits_stand_out():
    run = changed("parity", {"against": "snntorch", "decisions": 4_800, "mismatches": 1_200, "first": None})
    run["parity"]["first"] = {"layer": "blocks.0.conv", "clip": 2, "step": 3}
    run["placement"]["limits"][0]["value"] = 9_000
    text = text_of(full_run(run))
    assert "Decisions that differ from snntorch ✕ 1,200 of 4,800" in text
    assert "First mismatch: layer blocks.0.conv, clip 2, step 3." in text
    assert (
        "Does it fit on a chip? ✕ No. 5 cores on 1 chip of loihi2. Exceeded: neurons per core (9,000 of 8,192)." in text
    )
    assert "neurons per core 9,000 8,192 109.9 % ✕ exceeded" in text
    assert 'class="over"' in html_of(full_run(run))
    run["placement"]["violations"] = ["a: <b> exceeds"]
    assert "exceeds loihi2: a: <b> exceeds; NOT CHECKED" in text_of(full_run(run))
    assert "- a: \\<b\\> exceeds" in markdown.render(facts_of(full_run(run), {}))
    stated = {"name": "neurons per core", "value": 1, "max": 8, "evidence": "measured", "source": "our board"}
    run["placement"] |= {"limits": [stated], "violations": []}
    assert "Does it fit on a chip? ✓ Yes. 5 cores on 1 chip of loihi2. run.json" in text_of(full_run(run))
    assert "neurons per core 1 8 12.5 % measured: our board" in text_of(full_run(run))
    assert 'class="over"' not in html_of(full_run())


def test_a_record_with_gaps_still_renders():
    run = small_run()
    gaps = {"accuracy": None, "parity": None, "placement": None, "seed": None, "parents": [], "gcn": None}
    bare = Record.model_validate({**run, **gaps, "layers": []})
    text = text_of(bare)
    for part in (
        "the data have no labels",
        "This record contains no energies",
        "was not compared",
        "was not placed",
        "no manifest.json",
    ):
        assert part in text
    short = markdown.render(facts_of(bare, {}))
    for part in ("the data have no labels", "no energies", "no published figures", "was not compared", "not placed"):
        assert part in short
    silent = {name: 0 for name in run["totals"] if run["totals"][name] is not None}
    assert "with 0 synaptic operations" in text_of(full_run({**run, "totals": silent}))


def test_the_page_lists_the_first_of_many_predictions():
    given = manifest()
    many = MOST_PREDICTIONS + 5
    given["data"] |= {"clips": [f"clip-{number}" for number in range(many)], "labels": [0] * many}
    given["predictions"] = [0] * many
    text = text_of(full_run(), given)
    assert f"clip-{MOST_PREDICTIONS - 1} " in text
    assert f"clip-{MOST_PREDICTIONS} " not in text
    assert "The first 1,000 of 1,005" in text


def test_the_paper_preset_is_compared_with_the_paper():
    assert "Our reconstruction of the paper's network" in text_of(full_run(network="paper"))


def test_names_break_after_dots_and_underscores():
    assert page.breakable("a.b_<c>") == "a.<wbr>b_<wbr>&lt;c&gt;"


def test_spikes_of_the_host_are_told_from_those_of_the_chip_everywhere():
    record = full_run()
    text = text_of(record)
    assert "On the host 100 100 " in text
    assert "On the chip 203 200 " in text
    assert "Spikes spikes 200 of the chip" in text
    assert "All layers" not in text.split("Theory and measurement, layer by layer")[0]  # the sum of both is no figure
    short = markdown.render(facts_of(record, {}))
    assert "| **On the chip** | | 203 | | 200 |" in short


def test_layers_that_agree_by_construction_are_counted():
    exact = full_run(changed("layers.1.syn_ops", 8_000))
    assert "in 1 of 3 layers the ratio rounds to 1.000" in text_of(exact)


def test_a_ratio_to_another_network_s_figure_is_not_stated():
    text = text_of(full_run())
    assert "energy per sample, v5 a third-party page" in text
    assert re.search(r"0\.596 mJ 49\.2 nJ 48\.7 nJ another network No verdict", text)
    own = text_of(full_run(changed("gcn.preset", "paper"), network="paper"))
    assert re.search(r"0\.596 mJ 49\.2 nJ 48\.7 nJ 8\.17 × 10⁻⁵ Our reconstruction", own)
    cells = [row for table in tables_of(markdown.render(facts_of(full_run(), {}))) for row in table]
    assert {row[4] for row in cells if row[-1].startswith("No verdict")} == {"another network"}


def test_the_first_screen_of_another_network_has_no_word_of_the_paper():
    run = {**small_run(), "student": False, "gcn": None, "accuracy": None, "placement": None}
    record = full_run(run).model_copy(update={"claims": []})
    text = text_of(record).split(SECTIONS)[0]
    assert "Energy per sample: " in text
    assert "published 0.596" not in text
    assert "(paper)" not in text
    assert "Better than the GCN" not in text
    assert "the data have no labels run.json: accuracy" in text
    assert "not placed on a chip run.json: placement" in text
    assert "This confirms no figure of a chip." in text
    Balanced(html_of(record))
