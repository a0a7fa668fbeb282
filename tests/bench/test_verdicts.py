"""mksgn/bench/verdicts: verdicts under several energy models; a small network gets none about the paper's."""

from typing import Any

import pytest

from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import known_models, model_named, price
from mksgn.bench.record import Accuracy, Claim, Data, EnergyEntry, Record
from mksgn.bench.verdicts import assess, compare_with_published, gate
from mksgn.common.errors import BadInputError
from tests.bench.test_claims import OWN
from tests.bench.test_energy_models import PAPER_SOPS, totals
from tests.support.records import small_run


def energies(**counts: float) -> list[EnergyEntry]:
    return [price(model, totals(**counts)) for model in known_models()]


def rows(network: str = "paper", theory: float | None = 0.6, **counts: float) -> list[Claim]:
    """The paper's two energies and its reduction."""
    return compare_with_published(energies(**counts), theory, network)[:3]


def on(source: str, split: str, clips: int, top1: float) -> dict[str, Any]:
    """Data and accuracy of a run, of two classes, one of them without clips."""
    right = round(top1 * clips)
    accuracy = Accuracy(
        top1=right / clips,
        correct=right,
        per_class={"a": right / clips, "b": None},
        confusion=[[right, clips - right], [0, 0]],
    )
    return {"data": Data(source=source, split=split, clips=clips), "accuracy": accuracy}


def accuracies(network: str = "paper", **run: Any) -> dict[str, Claim]:
    claims = compare_with_published([], None, network, **run)[3:]
    return {claim.name.removeprefix("accuracy, "): claim for claim in claims}


def test_the_paper_s_own_operations_meet_the_claims_in_its_arithmetic_and_miss_them_on_loihi():
    v5, v4, reduction = rows(syn_ops=PAPER_SOPS, host_macs=0, spikes=1e6)
    assert v5.measured == pytest.approx(0.5958)
    assert v5.ratio == pytest.approx(0.9997, abs=1e-4)
    assert v5.theory == v4.theory == 0.6
    assert "holds under horowitz45-fp32: 0.596 mJ" in v5.verdict
    assert "does not hold under davies2018-loihi1: at least 15.6 mJ" in v5.verdict
    assert "sana-fe-loihi-2023: at least 23.5 mJ" in v5.verdict
    assert reduction.measured == pytest.approx(1 - 0.5958 / 35)
    assert reduction.theory == pytest.approx(1 - 0.6 / 35)
    assert "holds under horowitz45-fp32: 98.3 %" in reduction.verdict
    assert "does not hold under davies2018-loihi1: at most 55 %" in reduction.verdict
    assert "sana-fe-loihi-2023: at most 33 %" in reduction.verdict
    assert reduction.verdict.endswith(". The GCN stays at its published 35 mJ throughout")  # in INT8 it would be 1.75
    assert "GCN stays" not in v5.verdict
    assert "keras-spiking-loihi: 49 %" in reduction.verdict  # a total: it excludes all the rest, and there are no MACs


def test_a_lower_bound_refutes_and_never_confirms():
    _, _, reduction = rows(syn_ops=1e6, spikes=1e4, host_macs=1)
    assert "davies2018-loihi1" in reduction.verdict.split("stays open under")[1]
    assert "does not hold" not in reduction.verdict
    assert "holds under horowitz45-fp32: over 99.99 %" in reduction.verdict


def test_the_first_layer_at_every_step_can_undo_a_claim():
    # 0.36 mJ of operations and 0.184 mJ of MACs, or 0.736 mJ of them: 0.544 and 1.096 mJ, 98.4 % and 96.9 % below 35 mJ
    v5, _, reduction = rows(syn_ops=4e8, host_macs=4e7, host_macs_every_step=16e7)
    assert "horowitz45-fp32: 0.544 mJ (not with the first layer charged at every step)" in v5.verdict
    assert "horowitz45-fp32: 98.4 % (not with the first layer charged at every step)" in reduction.verdict
    assert "horowitz45-int8: 99.9 %; " in reduction.verdict


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("demo", "the network 'demo'"),
        ("paper with attention=none", "the network 'paper with attention=none'"),
        ("", "another"),
    ],
)
def test_another_network_gets_no_verdict_on_the_paper_s(network, named):
    for row in rows(network, syn_ops=1e6):
        assert row.verdict.startswith(f"No verdict on the paper's network: this run is of {named}")
        assert "which says nothing about it. By itself it meets" in row.verdict
        assert "holds" not in row.verdict
        assert "meets the figure under horowitz45-fp32" in row.verdict


def test_the_paper_preset_is_named_a_reconstruction():
    assert all(row.verdict.startswith("Our reconstruction") for row in rows("paper", syn_ops=1e6))


def test_without_a_total_under_the_published_model_nothing_is_measured():
    davies = price(model_named("davies2018-loihi1"), totals(syn_ops=1e6))
    row = compare_with_published([davies], None, "demo")[0]
    assert row.measured is row.ratio is row.theory is None
    assert "cannot be compared: no energy model priced it" in compare_with_published([], None, "demo")[0].verdict
    with pytest.raises(BadInputError, match="listed twice"):
        compare_with_published([davies, davies], None, "demo")


def test_an_accuracy_is_compared_on_its_benchmark_s_test_part_alone():
    ucla = accuracies(**on("nw-ucla:all_sqe", "xview", 464, 0.93))
    row = ucla["NW-UCLA"]
    assert (row.measured, row.theory) == (pytest.approx(432 / 464), None)
    assert row.ratio == pytest.approx(432 / 464 / 0.923)
    assert row.verdict.endswith("whose widths were not published: holds: 93.1 % of 464 clips")
    for name in ("NTU RGB+D 60 X-Sub", "NTU RGB+D 60 X-View"):  # X-View has the same split's name, of another data set
        assert ucla[name].measured is ucla[name].ratio is None
        assert "cannot be compared: this run is on other data: nw-ucla:all_sqe, split xview" in ucla[name].verdict


@pytest.mark.parametrize("source", ["ntu", "ctrgcn:x/NTU60_CS.npz", "pyskl"])
def test_every_reader_of_a_data_set_reads_its_benchmark(source):
    claims = accuracies(**on(source, "xsub", 16487, 0.7))
    assert "does not hold: 70.0 % of 16,487 clips" in claims["NTU RGB+D 60 X-Sub"].verdict
    assert claims["NTU RGB+D 60 X-View"].measured is claims["NW-UCLA"].measured is None


def test_a_part_of_a_benchmark_or_another_split_is_not_the_benchmark():
    assert "on 100 of the 464 clips of the test part" in accuracies(**on("nw-ucla", "xview", 100, 1))["NW-UCLA"].verdict
    for run in (
        on("nw-ucla", "view1-2", 504, 1),
        on("nw-ucla-2", "xview", 464, 1),
        on("synthetic", "synthetic", 500, 1),
    ):
        row = accuracies(**run)["NW-UCLA"]
        assert row.measured is None
        assert "on other data" in row.verdict
    assert "the run has no accuracy" in accuracies()["NW-UCLA"].verdict


def test_an_accuracy_of_another_network_says_nothing_of_the_paper_s():
    row = accuracies("small", **on("nw-ucla", "xview", 464, 0.5))["NW-UCLA"]
    assert row.verdict.startswith("No verdict on the paper's network: this run is of the network 'small'")
    assert row.verdict.endswith("By itself it misses it: 50.0 % of 464 clips")


def test_an_accuracy_is_met_at_the_digits_that_are_published():
    benchmark = {"sources": ["ntu"], "split": "xsub", "clips": 10_000}
    figure = Published.model_validate({**published_claims()[3].model_dump(), "benchmark": benchmark})
    for top1, outcome in ((0.785, "holds"), (0.7846, "holds"), (0.7844, "fails")):
        run = on("ntu", "xsub", 10_000, top1)
        assert assess(figure, [], run["data"], run["accuracy"])["accuracy"].outcome == outcome


def test_a_further_file_adds_claims_on_whatever_network_is_run(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    figures = published_claims([tmp_path / "own.yaml"])
    assert [figure.name for figure in figures][-2:] == ["accuracy, NW-UCLA", "our budget"]
    row = compare_with_published(energies(syn_ops=1e9, host_macs=1), 0.6, "demo", figures)[-1]
    assert row.verdict.startswith("holds under horowitz45-fp32: 0.900 mJ")
    assert "does not hold under davies2018-loihi1: at least 23.6 mJ" in row.verdict
    assert row.source == "data sheet (r1) [own]"
    assert row.measured is row.theory is None  # theory is of horowitz45-fp32, the figure of another model


def run_of(preset: str | None = "paper", **counts: float) -> Record:
    """The small run with other totals, priced by every model."""
    run = small_run()
    run["totals"] |= {"host_macs": 0, "host_macs_every_step": 0, "Effective_MACs": 0, "coincidences": 0, **counts}
    run["gcn"] = None if preset is None else {**run["gcn"], "preset": preset}
    record = Record.model_validate(run)
    return record.model_copy(update={"energy": [price(model, record.totals) for model in known_models()]})


def test_a_required_claim_is_met_where_it_holds_and_nowhere_else():
    record = run_of(syn_ops=PAPER_SOPS)
    for required, outcome, model in [
        ("energy per sample, v5", "holds", "horowitz45-fp32"),
        ("energy per sample, v5@horowitz45-int8", "holds", "horowitz45-int8"),
        ("energy per sample, v5@davies2018-loihi1", "fails", "davies2018-loihi1"),
        ("reduction against a multimodal GCN", "holds", "horowitz45-fp32"),
        ("reduction against a multimodal GCN@davies2018-loihi1", "fails", "davies2018-loihi1"),
        ("reduction against a multimodal GCN@loihi2-pilotnet", "not comparable", "loihi2-pilotnet"),
        ("accuracy, NW-UCLA", "not comparable", None),
    ]:
        result = gate(record, required)
        assert (result.outcome, result.model, result.missed) == (outcome, model, outcome != "holds"), required
    assert gate(record, "reduction against a multimodal GCN@davies2018-loihi1").text == (
        "reduction against a multimodal GCN under davies2018-loihi1: fails (at most 55 %; published 98.0 %)"
    )
    assert "at least 15.6 mJ; published 0.596 mJ" in gate(record, "energy per sample, v5@davies2018-loihi1").text
    assert "on other data: synthetic, split test" in gate(record, "accuracy, NW-UCLA").text


def test_a_lower_bound_that_meets_a_required_claim_leaves_it_open_which_is_missed():
    result = gate(run_of(syn_ops=1e3), "energy per sample, v5@davies2018-loihi1")
    assert (result.outcome, result.missed) == ("open", True)


@pytest.mark.parametrize("preset", ["demo", "paper with attention=none", None])
def test_a_claim_of_the_paper_s_network_cannot_be_required_of_another(preset):
    result = gate(run_of(preset, syn_ops=1e3), "energy per sample, v5")
    assert (result.outcome, result.missed) == ("not comparable", True)
    assert "the figure is of the network 'paper', the run of" in result.text


def test_an_own_claim_is_required_of_any_network(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN.replace("davies2018-loihi1", "horowitz45-fp32"))
    figures = published_claims([tmp_path / "own.yaml"])
    assert gate(run_of(None, syn_ops=1e9), "our budget", figures).outcome == "holds"
    assert gate(run_of(None, syn_ops=1e11), "our budget", figures).outcome == "fails"


@pytest.mark.parametrize(
    ("required", "fault"),
    [
        ("energy", "no claim 'energy': use NAME or NAME@MODEL with one of: energy per sample, v5; "),
        ("energy@horowitz45-fp32", "no claim 'energy@horowitz45-fp32'"),
        ("energy per sample, v5@mine", "the run was not priced by 'mine': use one of horowitz45-fp32, "),
        ("accuracy, NW-UCLA@horowitz45-fp32", "is an accuracy, which has no energy model: leave out @horowitz45-fp32"),
    ],
)
def test_a_required_claim_that_does_not_exist_is_refused(required, fault):
    with pytest.raises(BadInputError, match=fault):
        gate(run_of(syn_ops=1e3), required)


def test_verdict_and_gate_say_the_same():
    figures = published_claims()
    for sops in (1e3, 1e8, PAPER_SOPS, 1e12):
        record = run_of(syn_ops=sops)
        for claim in compare_with_published(record.energy, None, "paper", figures)[:3]:
            for entry in record.energy:
                outcome = gate(record, f"{claim.name}@{entry.model}", figures).outcome
                part = {"holds": "holds under", "fails": "does not hold under", "open": "stays open under"}.get(outcome)
                clauses = [words for words in claim.verdict.split(": ", 1)[1].split("; ") if entry.model in words]
                assert [words.startswith(part) for words in clauses] == ([] if part is None else [True])
