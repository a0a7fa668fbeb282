"""mksgn/bench/claims: verdicts under several energy models, and that a small network is given none about the paper's."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from mksgn.bench.claims import SCHEMA, ClaimsFile, Published, evaluate, gate, judge, percent, published_claims, reprice
from mksgn.bench.energy_models import DATA, json_schema_of, known_models, model_named, price
from mksgn.bench.record import Accuracy, Claim, Data, EnergyEntry, Record
from mksgn.common.errors import BadInputError
from tests.bench.test_energy_models import PAPER_SOPS, totals
from tests.bench.test_record import small_run


def energies(**counts: float) -> list[EnergyEntry]:
    return [price(model, totals(**counts)) for model in known_models()]


def rows(network: str = "paper", theory: float | None = 0.6, **counts: float) -> list[Claim]:
    """The paper's two energies and its reduction."""
    return evaluate(energies(**counts), theory, network)[:3]


def on(source: str, split: str, clips: int, top1: float) -> dict[str, Any]:
    """A run's data and accuracy, of two classes, one of them never seen."""
    right = round(top1 * clips)
    accuracy = Accuracy(
        top1=right / clips,
        correct=right,
        per_class={"a": right / clips, "b": None},
        confusion=[[right, clips - right], [0, 0]],
    )
    return {"data": Data(source=source, split=split, clips=clips), "accuracy": accuracy}


def accuracies(network: str = "paper", **run: Any) -> dict[str, Claim]:
    found = evaluate([], None, network, **run)[3:]
    return {claim.name.removeprefix("accuracy, "): claim for claim in found}


def test_the_published_figures_keep_their_versions_and_grades():
    v5, v4, reduction, *accuracies = published_claims()
    assert [(figure.value, figure.unit, figure.grade) for figure in accuracies] == [
        (0.785, "fraction", "review"),
        (0.856, "fraction", "review"),
        (0.923, "fraction", "review"),
    ]
    assert [(b.split, b.clips) for b in (f.benchmark for f in accuracies) if b] == [
        ("xsub", 16487), ("xview", 18932), ("xview", 464),
    ]  # fmt: skip
    assert (v5.value, v5.version, v5.grade) == (0.596, "v5", "review")
    assert (v4.value, v4.version, v4.grade) == (0.614, "v4", "review")
    assert (reduction.value, reduction.reference_mJ, reduction.grade) == (0.98, 35, "paper")
    assert {figure.energy_model for figure in (v5, v4, reduction)} == {"horowitz45-fp32"}


def test_the_paper_s_own_operations_meet_the_claims_in_its_arithmetic_and_miss_them_on_loihi():
    v5, v4, reduction = rows(syn_ops=PAPER_SOPS, host_macs=0, spikes=1e6)
    assert v5.measured == pytest.approx(0.5958)
    assert v5.ratio == pytest.approx(0.9997, abs=1e-4)
    assert v5.theory == v4.theory == 0.6
    assert "holds under horowitz45-fp32: 0.596 mJ" in v5.verdict
    assert "does not hold under davies2018-loihi1: at least 15.6 mJ" in v5.verdict
    assert "sana-fe-loihi: at least 23.5 mJ" in v5.verdict
    assert reduction.measured == pytest.approx(1 - 0.5958 / 35)
    assert reduction.theory == pytest.approx(1 - 0.6 / 35)
    assert "holds under horowitz45-fp32: 98.3 %" in reduction.verdict
    assert "does not hold under davies2018-loihi1: at most 55 %" in reduction.verdict
    assert "sana-fe-loihi: at most 33 %" in reduction.verdict
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
    row = evaluate([davies], None, "demo")[0]
    assert row.measured is row.ratio is row.theory is None
    assert "cannot be compared: no energy model priced it" in evaluate([], None, "demo")[0].verdict
    with pytest.raises(BadInputError, match="stands twice"):
        evaluate([davies, davies], None, "demo")


def test_what_the_published_energy_becomes_at_other_prices():
    v5, _, reduction = published_claims()[:3]
    assert reduction.reference_mJ is not None
    becomes = {row.model: row for row in reprice(v5, reduction.reference_mJ)}
    assert becomes["horowitz45-fp32"].energy_mJ == pytest.approx(0.596)
    assert becomes["horowitz45-fp32"].reduction == pytest.approx(0.983, abs=1e-3)
    assert becomes["horowitz45-int32add"].energy_mJ == pytest.approx(0.066, abs=5e-4)
    assert becomes["davies2018-loihi1"].energy_mJ == pytest.approx(15.6, abs=0.05)
    assert becomes["davies2018-loihi1"].reduction == pytest.approx(0.55, abs=5e-3)
    assert becomes["sana-fe-loihi"].energy_mJ == pytest.approx(23.5, abs=0.05)
    assert becomes["sana-fe-loihi"].reduction == pytest.approx(0.33, abs=5e-3)
    assert "loihi2-pilotnet" not in becomes


def test_a_reduction_needs_its_reference():
    fields = published_claims()[2].model_dump()
    with pytest.raises(ValueError, match="reference_mJ belongs to a figure of quantity reduction, and only there"):
        Published.model_validate({**fields, "reference_mJ": None})
    with pytest.raises(ValueError, match="a fraction below 1"):
        Published.model_validate({**fields, "value": 98.0})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"energy_model": None}, "energy_model belongs to a figure of quantity energy or reduction"),
        ({"unit": "fraction"}, "unit is fraction; of a figure of quantity energy it is mJ"),
        ({"benchmark": {"sources": ["ntu"], "split": "xsub", "clips": 1}}, "benchmark belongs to a figure of quantity accuracy"),
        ({"value": 0}, "greater than 0"),
        ({"grade": "heard"}, "Input should be 'paper', 'review' or 'own'"),
    ],
)  # fmt: skip
def test_a_figure_that_contradicts_itself_is_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        Published.model_validate({**published_claims()[0].model_dump(), **changes})


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
    found = accuracies(**on(source, "xsub", 16487, 0.7))
    assert "does not hold: 70.0 % of 16,487 clips" in found["NTU RGB+D 60 X-Sub"].verdict
    assert found["NTU RGB+D 60 X-View"].measured is found["NW-UCLA"].measured is None


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
        assert judge(figure, [], run["data"], run["accuracy"])["accuracy"].outcome == outcome


OWN = """
schema: mksgn.claims/1
claims:
  - {name: our budget, quantity: energy, value: 20, unit: mJ, version: r1, grade: own, source: data sheet,
     energy_model: davies2018-loihi1}
"""


def test_a_further_file_adds_claims_on_whatever_network_is_run(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    figures = published_claims([tmp_path / "own.yaml"])
    assert [figure.name for figure in figures][-2:] == ["accuracy, NW-UCLA", "our budget"]
    row = evaluate(energies(syn_ops=1e9, host_macs=1), 0.6, "demo", figures)[-1]
    assert row.verdict.startswith("holds under horowitz45-fp32: 0.900 mJ")
    assert "does not hold under davies2018-loihi1: at least 23.6 mJ" in row.verdict
    assert row.source == "data sheet (r1) [own]"
    assert row.measured is row.theory is None  # theory is of horowitz45-fp32, the figure of another model


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (OWN.replace("our budget", "energy per sample, v5").replace("name: ", "name: '").replace("v5,", "v5',"), "exists already"),
        (OWN.replace("value: 20", "value: -20"), "our budget: claims.0.value: .* greater than 0; got -20"),
        (OWN.replace("energy_model:", "energy_modell:"), "our budget: claims.0.energy_modell: Extra inputs"),
        (OWN.replace("grade: own", "grade: heard"), "our budget: .*; got 'heard'"),
        (OWN.replace("claims/1", "claims/2"), "schema: Input should be 'mksgn.claims/1'"),
    ],
)  # fmt: skip
def test_a_file_of_claims_with_a_fault_is_refused_in_one_line(tmp_path, text, fault):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BadInputError, match=f"own.yaml: .*{fault}") as error:
        published_claims([tmp_path / "own.yaml"])
    assert "\n" not in str(error.value)


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
        found = gate(record, required)
        assert (found.outcome, found.model, found.missed) == (outcome, model, outcome != "holds"), required
    assert gate(record, "reduction against a multimodal GCN@davies2018-loihi1").text == (
        "reduction against a multimodal GCN under davies2018-loihi1: fails (at most 55 %; published 98.0 %)"
    )
    assert "at least 15.6 mJ; published 0.596 mJ" in gate(record, "energy per sample, v5@davies2018-loihi1").text
    assert "on other data: synthetic, split test" in gate(record, "accuracy, NW-UCLA").text


def test_a_lower_bound_that_meets_a_required_claim_leaves_it_open_which_is_missed():
    found = gate(run_of(syn_ops=1e3), "energy per sample, v5@davies2018-loihi1")
    assert (found.outcome, found.missed) == ("open", True)


@pytest.mark.parametrize("preset", ["demo", "paper with attention=none", None])
def test_a_claim_of_the_paper_s_network_cannot_be_required_of_another(preset):
    found = gate(run_of(preset, syn_ops=1e3), "energy per sample, v5")
    assert (found.outcome, found.missed) == ("not comparable", True)
    assert "the figure is of the network 'paper', the run of" in found.text


def test_a_claim_of_one_s_own_is_required_of_any_network(tmp_path):
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
    for sops in (1e3, 1e8, PAPER_SOPS, 1e12):
        record = run_of(syn_ops=sops)
        for claim in evaluate(record.energy, None, "paper")[:3]:
            for entry in record.energy:
                outcome = gate(record, f"{claim.name}@{entry.model}").outcome
                part = {"holds": "holds under", "fails": "does not hold under", "open": "stays open under"}.get(outcome)
                said = [words for words in claim.verdict.split(": ", 1)[1].split("; ") if entry.model in words]
                assert [words.startswith(part) for words in said] == ([] if part is None else [True])


def test_the_schema_checked_in_is_the_code_s_and_accepts_our_file():
    schema = (DATA / "claims.schema.json").read_text(encoding="utf-8")
    assert schema == json_schema_of(ClaimsFile, SCHEMA) + "\n", "run make schema"
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    validator.check_schema(json.loads(schema))
    for text in ((DATA / "claims.yaml").read_text(encoding="utf-8"), OWN):
        validator.validate(yaml.safe_load(text))
    assert not validator.is_valid(yaml.safe_load(OWN.replace("grade: own", "grade: heard")))


def test_percentages_keep_decimals_where_they_matter():
    texts = [percent(x) for x in (1.0, 0.99995, 0.983, 0.5536, -1.2)]
    assert texts == ["100 %", "over 99.99 %", "98.3 %", "55 %", "-120 %"]
