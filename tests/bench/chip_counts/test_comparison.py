"""Comparison of a chip's counters and energy with a run: differences, known conventions, and refusals."""

import pytest

from mksgn.bench.chip_counts.comparison import ChipComparison, compare_chip
from mksgn.bench.chip_counts.counts import COUNTERS, clip_digest
from mksgn.bench.chip_counts.tables import sentences
from mksgn.bench.manifest import load_manifest
from mksgn.common.errors import BadInputError
from tests.support.bench_folders import CLIPS
from tests.support.chip_readings import ENERGY, changed, counts, readings


def row(comparison: ChipComparison, population: str, counter: str):
    return next(row for row in comparison.rows if (row.population, row.counter) == (population, counter))


def test_a_chip_with_the_record_s_counters_is_equal_in_all(record):
    comparison = compare_chip(record, counts(record))
    assert len(comparison.rows) == len(COUNTERS) * sum(layer.place == "chip" for layer in record.layers)
    assert all(row.same for row in comparison.rows)
    assert comparison.first is None
    assert comparison.missing == ()
    assert comparison.on_host == tuple(layer.name for layer in record.layers if layer.place == "host")
    assert "Every population that was read fires as often as in the record." in sentences(comparison)


def test_means_per_clip_are_equal_to_half_an_event_of_the_run(record):
    means = {name: {c: v / CLIPS for c, v in each.items()} for name, each in readings(record).items()}
    assert all(row.same for row in compare_chip(record, counts(record, counts_are="per clip", populations=means)).rows)
    name = next(iter(means))
    means[name]["spikes"] += 0.51 / CLIPS
    assert not row(compare_chip(record, counts(record, counts_are="per clip", populations=means)), name, "spikes").same


def test_the_first_population_in_network_order_with_other_spikes_is_named(record):
    populations = readings(record)
    order = list(populations)
    for name in reversed(order[2:4]):  # the later one first in the file
        populations[name]["spikes"] += 3
    turned = {name: populations[name] for name in reversed(order)}
    comparison = compare_chip(record, counts(record, populations=turned))
    assert comparison.first is not None
    assert (comparison.first.population, comparison.first.difference) == (order[2], 3)
    assert any(line.startswith(f"Look at {order[2]} first") for line in sentences(comparison))


def test_known_counting_conventions_explain_differences_exactly(record):
    product = next(layer for layer in record.layers if layer.product_units and layer.coincidences)
    conv = next(layer for layer in record.layers if layer.place == "chip" and not layer.product_units and layer.spikes)
    cases = [
        (
            product,
            "dendrite_updates",
            product.neuron_updates - product.product_units,
            "without the record's product units",
        ),
        (product, "axon_out", product.axon_out - product.coincidences, "without the record's coincidences"),
        (conv, "dendrite_updates", 2 * conv.neuron_updates, "2 times the record's: passes of the neuron program"),
        (conv, "syn_ops", conv.effective_acs, "effective_acs" if conv.effective_acs != conv.syn_ops else ""),
        (conv, "spikes", conv.spikes + 1, ""),
        (conv, "dendrite_updates", 2 * conv.neuron_updates + 1, ""),
    ]
    for layer, counter, value, note in cases:
        comparison = row(compare_chip(record, changed(record, layer.name, counter, value)), layer.name, counter)
        assert (note in comparison.note) if note else not comparison.note
    sent = next(layer for layer in record.layers if layer.axon_out and layer.axon_out > layer.spikes > 0)
    comparison = row(compare_chip(record, changed(record, sent.name, "axon_out", sent.spikes)), sent.name, "axon_out")
    assert "every spike counted once" in comparison.note


def test_missing_populations_are_named_and_totals_compared(record):
    populations = readings(record)
    lacking = [populations.popitem()[0] for _ in range(2)]
    total = sum(layer.syn_ops for layer in record.layers if layer.place == "chip")
    comparison = compare_chip(record, counts(record, populations=populations, totals={"syn_ops": total + 5}))
    assert set(comparison.missing) == set(lacking)
    assert row(comparison, "totals", "syn_ops").difference == 5
    only = compare_chip(record, counts(record, populations={}, totals={"spikes": 1}))
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
def test_runs_that_cannot_be_compared_are_refused_with_a_remedy(record, folder, change, fault):
    with pytest.raises(BadInputError, match=fault) as error:
        compare_chip(record, counts(record, **change), clips=load_manifest(folder).data.clips)
    assert "\n" not in str(error.value)


def test_clips_are_recognised_by_the_hash_of_their_names_in_order(record, folder):
    names = load_manifest(folder).data.clips
    chip = counts(record, clips={"count": CLIPS, "names_sha256": clip_digest(names)})
    assert compare_chip(record, chip, clips=names).first is None
    assert clip_digest(names) != clip_digest(names[::-1]) != clip_digest(["".join(names)])


def test_the_measured_energy_is_compared_with_every_energy_model(record):
    comparison = compare_chip(record, counts(record, energy=ENERGY))
    assert {row.model for row in comparison.energies} == {e.model for e in record.energy if e.terms.get("syn_ops")}
    fp32 = next(row for row in comparison.energies if row.model == "horowitz45-fp32")
    entry = next(e for e in record.energy if e.model == fp32.model)
    assert (fp32.measured_mJ, fp32.part) == (0.5, "dynamic")  # 2 mJ less 1.5 static, which the list leaves out
    assert fp32.ratio == pytest.approx(0.5 / entry.terms["syn_ops"])  # the encoder's MACs are the host's
    whole = compare_chip(record, counts(record, energy={**ENERGY, "includes_host": True})).energies
    assert next(row for row in whole if row.model == fp32.model).record_mJ == entry.total_mJ
    for energy_rows, bound in (
        (comparison.energies, False),
        (whole, True),
    ):  # its only event without a price is the host's
        assert next(row for row in energy_rows if row.model == "horowitz45-int32add").bound is bound
    assert "memory" in fp32.left_out
    assert not {"host_macs", "static_power"} & set(fp32.left_out)  # on neither side
    nearest = max(
        comparison.energies, key=lambda row: row.record_mJ
    )  # 0.5 mJ is more than any list gives this small network
    assert f"The closest energy model is {nearest.model}: " in comparison.verdict
    assert f"at most {0.5e9 / record.totals.syn_ops:.3g} pJ" in comparison.verdict
    assert "Static power is 75% of the measured energy" in comparison.verdict
    unsplit = compare_chip(record, counts(record, energy={"total_mJ": 2.0}))
    assert {row.part for row in unsplit.energies} == {"total"}


def test_energy_models_above_the_measured_energy_are_named(record):
    rows = compare_chip(record, counts(record, energy=ENERGY)).energies
    most = max(rows, key=lambda row: row.record_mJ)
    comparison = compare_chip(record, counts(record, energy={"total_mJ": most.record_mJ * 0.99, "static_mJ": 0}))
    assert f"Higher than measured, so not this chip's prices: {most.model}." in comparison.verdict
