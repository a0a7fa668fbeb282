"""bench/chip_counts and mksgn/bench/chip_counts: a laboratory's counters beside a real run's, and docs/own-chip.md's examples."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from mksgn.bench.chip_counts.comparison import Beside, beside
from mksgn.bench.chip_counts.counts import COUNTERS, ChipCounts, clip_digest, model_of, models_file, read, template
from mksgn.bench.chip_counts.tables import sentences, tables
from mksgn.bench.claims import ClaimsFile
from mksgn.bench.energy_models import ModelsFile, known_models, price
from mksgn.bench.manifest import load_manifest
from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from mksgn.common.errors import BadInputError
from tests.support.bench_folders import CLIPS, make_run
from tests.support.paths import DOCS

PAGE = DOCS / "own-chip.md"
ENERGY = {"total_mJ": 2.0, "static_mJ": 1.5, "includes": ["all rails of one chip"]}
KINDS = {"mksgn.chip_counts/1": ChipCounts, "mksgn.energy_models/1": ModelsFile, "mksgn.claims/1": ClaimsFile}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def record(folder) -> Record:
    return load(folder)


def readings(record: Record) -> dict[str, dict[str, float]]:
    """What a chip that counts as the record does would show."""
    chip = [layer for layer in record.layers if layer.place == "chip"]
    return {layer.name: {name: getattr(layer, ours) for name, ours in COUNTERS.items()} for layer in chip}


def counts(record: Record, **changes: Any) -> ChipCounts:
    values = {
        "schema": "mksgn.chip_counts/1",
        "name": "board-7",
        "chip": "a chip",
        "board": "a board",
        "software": "compiler 1.0",
        "method": "counters of every core read before and after the run",
        "model_sha256": record.model.sha256,
        "clips": {"count": CLIPS, "source": "synthetic", "split": record.data.split},
        "counts_are": "of the run",
        "populations": readings(record),
        **changes,
    }
    return ChipCounts.model_validate(values)


def changed(record: Record, population: str, counter: str, value: float) -> ChipCounts:
    populations = readings(record)
    populations[population][counter] = value
    return counts(record, populations=populations)


def row(found: Beside, population: str, counter: str):
    return next(each for each in found.rows if (each.population, each.counter) == (population, counter))


def test_a_chip_that_counts_alike_is_equal_in_every_counter(record):
    found = beside(record, counts(record))
    assert len(found.rows) == len(COUNTERS) * sum(layer.place == "chip" for layer in record.layers)
    assert all(each.same for each in found.rows)
    assert found.first is None
    assert found.missing == ()
    assert found.on_host == tuple(layer.name for layer in record.layers if layer.place == "host")
    assert "Every population that was read fires as often as in the record." in sentences(found)


def test_means_per_clip_are_equal_to_half_an_event_of_the_run(record):
    means = {name: {c: v / CLIPS for c, v in each.items()} for name, each in readings(record).items()}
    assert all(each.same for each in beside(record, counts(record, counts_are="per clip", populations=means)).rows)
    name = next(iter(means))
    means[name]["spikes"] += 0.51 / CLIPS
    assert not row(beside(record, counts(record, counts_are="per clip", populations=means)), name, "spikes").same


def test_the_first_population_in_the_network_s_order_that_fires_otherwise_is_named(record):
    populations = readings(record)
    order = list(populations)
    for name in reversed(order[2:4]):  # the later one first in the file
        populations[name]["spikes"] += 3
    turned = {name: populations[name] for name in reversed(order)}
    found = beside(record, counts(record, populations=turned))
    assert found.first is not None
    assert (found.first.population, found.first.difference) == (order[2], 3)
    assert any(line.startswith(f"Look at {order[2]} first") for line in sentences(found))


def test_known_ways_of_counting_are_recognised_to_the_last_event(record):
    product = next(layer for layer in record.layers if layer.product_units and layer.coincidences)
    conv = next(layer for layer in record.layers if layer.place == "chip" and not layer.product_units and layer.spikes)
    cases = [
        (product, "dendrite_updates", product.neuron_updates - product.product_units, "without our product units"),
        (product, "axon_out", product.axon_out - product.coincidences, "without our coincidences"),
        (conv, "dendrite_updates", 2 * conv.neuron_updates, "2 times ours: passes of the neuron program"),
        (conv, "syn_ops", conv.effective_acs, "effective_acs" if conv.effective_acs != conv.syn_ops else ""),
        (conv, "spikes", conv.spikes + 1, ""),
        (conv, "dendrite_updates", 2 * conv.neuron_updates + 1, ""),
    ]
    for layer, counter, value, note in cases:
        found = row(beside(record, changed(record, layer.name, counter, value)), layer.name, counter)
        assert (note in found.note) if note else not found.note
    sent = next(layer for layer in record.layers if layer.axon_out and layer.axon_out > layer.spikes > 0)
    found = row(beside(record, changed(record, sent.name, "axon_out", sent.spikes)), sent.name, "axon_out")
    assert "every spike counted once" in found.note


def test_populations_that_the_file_does_not_have_are_named_and_totals_compared(record):
    populations = readings(record)
    lacking = [populations.popitem()[0] for _ in range(2)]
    total = sum(layer.syn_ops for layer in record.layers if layer.place == "chip")
    found = beside(record, counts(record, populations=populations, totals={"syn_ops": total + 5}))
    assert set(found.missing) == set(lacking)
    assert row(found, "totals", "syn_ops").difference == 5
    only = beside(record, counts(record, populations={}, totals={"spikes": 1}))
    assert only.first is None  # of all populations together nothing can be located
    assert "No population's spikes were read" in " ".join(sentences(only))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"model_sha256": "e" * 64}, "put the record's model.nir on the chip"),
        ({"clips": {"count": 4}}, r"4 clips on the chip, 6 in the record; mksgn-bench run --limit 4"),
        ({"clips": {"count": 8}}, "8 clips on the chip, 6 in the record; run the record's clips"),
        ({"clips": {"count": CLIPS, "source": "nw-ucla:/data"}}, "clips of nw-ucla:/data on the chip, of synthetic"),
        ({"clips": {"count": CLIPS, "split": "xview"}}, "split xview on the chip, synthetic in the record"),
        ({"clips": {"count": CLIPS, "names_sha256": "0" * 64}}, "the same in another order"),
        ({"populations": {"block1_sgcc": {"spikes": 1}}}, "no population 'block1_sgcc'; did you mean 'block1_sgc'?"),
        ({"populations": {"ssc": {"spikes": 1}}}, "'ssc' is computed on the host in the record"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_remedy(record, folder, change, fault):
    with pytest.raises(BadInputError, match=fault) as error:
        beside(record, counts(record, **change), clips=load_manifest(folder).data.clips)
    assert "\n" not in str(error.value)


def test_clips_of_the_manifest_are_recognised_by_their_names_in_order(record, folder):
    names = load_manifest(folder).data.clips
    chip = counts(record, clips={"count": CLIPS, "names_sha256": clip_digest(names)})
    assert beside(record, chip, clips=names).first is None
    assert clip_digest(names) != clip_digest(names[::-1]) != clip_digest(["".join(names)])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"populations": {}}, "nothing was read"),
        ({"populations": {"smf": {"spikes": 1.5}}}, r"smf: spikes \(1.5\) of the run must be a whole number"),
        ({"populations": {"smf": {"spikes": -1}}}, "greater than or equal to 0"),
        ({"populations": {"smf": {"synops": 1}}}, "Extra inputs are not permitted"),
        ({"energy": {"total_mJ": 2, "static_mJ": 1.5, "dynamic_mJ": 1}}, r"\(2.5\) is not total_mJ \(2\)"),
        ({"energy": {"total_mJ": 2, "static_mJ": 3}}, r"static_mJ \(3\) exceeds total_mJ"),
        ({"counts_are": "per step"}, "counts_are: Input should be 'of the run' or 'per clip'"),
        ({"method": ""}, "method: String should have at least 1 character"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_in_one_line(record, tmp_path, change, fault):
    values = counts(record).model_dump(by_alias=True, mode="json") | change
    path = tmp_path / "counts.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BadInputError, match=fault) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_the_template_names_every_population_and_is_filled_in_by_hand(record, folder, tmp_path):
    names = load_manifest(folder).data.clips
    values = yaml.safe_load(template(record, names))
    assert list(values["populations"]) == [layer.name for layer in record.layers if layer.place == "chip"]
    values |= dict.fromkeys(("chip", "board", "software", "method"), "told")
    values["populations"]["readout"]["spikes_in"] = 17
    path = tmp_path / "counts.json"
    path.write_text(yaml.safe_dump(values))
    found = beside(record, read(path), clips=names)
    assert len(found.rows) == 1
    assert len(found.missing) == len(values["populations"]) - 1


def test_the_measured_energy_is_laid_beside_every_price_list(record):
    found = beside(record, counts(record, energy=ENERGY))
    assert {each.model for each in found.energies} == {e.model for e in record.energy if e.terms.get("syn_ops")}
    fp32 = next(each for each in found.energies if each.model == "horowitz45-fp32")
    entry = next(e for e in record.energy if e.model == fp32.model)
    assert (fp32.measured_mJ, fp32.part) == (0.5, "dynamic")  # 2 mJ less 1.5 static, which the list leaves out
    assert fp32.ratio == pytest.approx(0.5 / entry.terms["syn_ops"])  # the encoder's MACs are the host's
    whole = beside(record, counts(record, energy={**ENERGY, "includes_host": True})).energies
    assert next(each for each in whole if each.model == fp32.model).ours_mJ == entry.total_mJ
    for found_rows, bound in ((found.energies, False), (whole, True)):  # its only event without a price is the host's
        assert next(each for each in found_rows if each.model == "horowitz45-int32add").bound is bound
    assert "memory" in fp32.left_out
    assert not {"host_macs", "static_power"} & set(fp32.left_out)  # on neither side
    nearest = max(
        found.energies, key=lambda each: each.ours_mJ
    )  # 0.5 mJ is more than any list gives this small network
    assert f"Nearest is {nearest.model}: " in found.verdict
    assert f"{0.5e9 / record.totals.syn_ops:.3g} pJ at most" in found.verdict
    assert "Static power is 75% of what was measured" in found.verdict
    unsplit = beside(record, counts(record, energy={"total_mJ": 2.0}))
    assert {each.part for each in unsplit.energies} == {"total"}


def test_price_lists_above_the_measured_energy_are_named(record):
    rows = beside(record, counts(record, energy=ENERGY)).energies
    most = max(rows, key=lambda each: each.ours_mJ)
    found = beside(record, counts(record, energy={"total_mJ": most.ours_mJ * 0.99, "static_mJ": 0}))
    assert f"More than was measured: {most.model}; these prices are not this chip's." in found.verdict


def test_a_measured_energy_becomes_a_model_that_prices_runs(record, tmp_path):
    chip = counts(record, energy=ENERGY, seconds_per_clip=0.01)
    model = model_of(chip, record)
    assert model.evidence == "measured"
    assert model.anchor is not None
    assert model.anchor.static_power_W == pytest.approx(0.15)  # 1.5 mJ in 10 ms
    assert (model.anchor.energy_per_inference_mJ, model.anchor.inferences_per_s) == (2.0, 100.0)
    path = tmp_path / "mine.yaml"
    path.write_text(models_file([model]))
    assert known_models([path])[-1] == model
    entry = price(model, record.totals, steps=record.execution.steps)
    assert entry.terms == {"static_power": pytest.approx(1.5)}
    assert entry.total_mJ is None
    for lacking in ({"energy": {"total_mJ": 2.0}, "seconds_per_clip": 0.01}, {"energy": ENERGY}, {}):
        with pytest.raises(BadInputError, match=r"an energy model needs .* measure the idle chip too"):
            model_of(counts(record, **lacking), record)


def test_tables_show_what_differs_and_every_energy(record):
    text = StringIO()
    console = Console(file=text, width=140, highlight=False, markup=False)
    product = next(layer for layer in record.layers if layer.product_units)
    chip = changed(record, product.name, "dendrite_updates", product.neuron_updates - product.product_units)
    for table in tables(beside(record, chip.model_copy(update={"energy": counts(record, energy=ENERGY).energy}))):
        console.print(table)
    assert product.name in text.getvalue()
    assert "without our product units" in " ".join(text.getvalue().split())
    assert "horowitz45-fp32" in text.getvalue()
    assert "readout" not in text.getvalue()  # equal, so not shown


def blocks() -> list[dict[str, Any]]:
    return [
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    ]


def test_the_page_s_examples_are_valid_files():
    examples = blocks()
    assert {each["schema"] for each in examples} == set(KINDS)
    for each in examples:
        KINDS[each["schema"]].model_validate(each)
