"""mksgn/bench/check: a real run passes; a flipped byte, a changed figure and a broken chain are faults."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mksgn.bench.check.check import check
from mksgn.bench.check.counts import check_energies, check_totals
from mksgn.bench.check.findings import CheckResult
from mksgn.bench.counters import totals_of
from mksgn.bench.energy_models import known_models, model_named
from mksgn.bench.errors import FaultyRecordError
from mksgn.bench.record import Record
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import update_manifest
from tests.support.bench_folders import CLIPS, make_run
from tests.support.records import changed, small_run
from tests.support.tiers import examples


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of model.pt and model.nir, with their run in run/."""
    return make_run(tmp_path_factory.mktemp("lab")).parent


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run, with its model and parent, that a test may change."""
    shutil.copytree(made, tmp_path / "lab")
    return tmp_path / "lab" / "run"


def change(run: Path, alter: Callable[[dict[str, Any]], None]) -> None:
    """Change run.json and seal the folder again, so that only its figures can show the change."""
    values = json.loads((run / "run.json").read_text())
    alter(values)
    (run / "run.json").write_text(json.dumps(values, indent=2))
    update_manifest(run, ["run.json"])


def faults(result: CheckResult) -> str:
    return "\n".join(map(str, result.faults))


def test_a_run_passes_and_says_what_was_checked(made):
    result = check(made / "run")
    assert result.passed, faults(result)
    result.raise_faults()
    checked = "\n".join(result.checked)
    for part in (
        "the hash of its own contents",
        "5 of 5 files",
        "its schema",
        "totals from its",
        "energies from the totals",
        f"of {CLIPS} clips",
    ):
        assert part in checked
    assert f"model: {made / 'model.nir'} is the file that was run" in checked
    assert f"parent: {made / 'model.pt'} is the file that the run names" in checked
    assert [str(finding) for finding in result.unchecked] == [
        "run.json: what only another run can show: syn_ops and messages of a layer, largest membranes, host-to-chip spikes, "
        "weights, times"
    ]


@pytest.mark.parametrize(
    "name", ["run.json", "spikes.npz", "manifest.json", "run.log", "report.html", "report.md", "../model.nir"]
)
def test_a_flipped_byte_anywhere_is_found(run, name):
    path = run / name
    whole = path.read_bytes()
    rng = random.Random(name)
    places = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(examples(4, 1)))}
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= rng.randrange(1, 256)
        path.write_bytes(spoilt)
        result = check(run, near=[path.parent])
        assert any(path.name in str(fault) for fault in result.faults), place
    path.write_bytes(whole)
    assert check(run).passed


def test_missing_truncated_foreign_and_left_over_files(run):
    (run / "notes.txt").write_text("mine")
    (run / "spikes.npz.part").write_text("half")
    result = check(run)
    assert result.passed
    assert {finding.where for finding in result.remarks} >= {"notes.txt", "spikes.npz.part"}
    (run / "report.md").unlink()
    (run / "spikes.npz").write_bytes((run / "spikes.npz").read_bytes()[:-30])
    result = check(run)
    assert "report.md: missing, though the manifest lists it" in faults(result)
    assert "spikes.npz: changed since the run" in faults(result)
    assert "spikes.npz: cannot be read" in faults(result)
    with pytest.raises(FaultyRecordError, match=r"run: 3 faults\n") as error:
        result.raise_faults()
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 4


def test_a_folder_without_a_manifest(run):
    (run / "manifest.json").unlink()
    assert faults(check(run)) == "manifest.json: missing; run the benchmark again"
    (run / "progress.npz").write_bytes(b"")
    assert "the run is not finished: resume it with --resume" in faults(check(run))
    with pytest.raises(BadInputError, match="no such folder"):
        check(run / "absent")


def first(values: dict[str, Any], place: str = "chip") -> dict[str, Any]:
    return next(layer for layer in values["layers"] if layer["place"] == place and layer["spikes"])


def more_spikes(values: dict[str, Any]) -> None:
    first(values)["spikes"] += 1


def more_deliveries(values: dict[str, Any]) -> None:
    first(values)["syn_ops"] += CLIPS
    first(values)["syn_ops_by_kind"]["convolution"] += CLIPS


def more_arrivals(values: dict[str, Any]) -> None:
    first(values)["memory"]["arrivals"]["convolution"] += CLIPS


def dearer(values: dict[str, Any]) -> None:
    entry = next(entry for entry in values["energy"] if entry["model"] == "sana-fe-loihi")
    entry["prices"]["prices_pJ"]["synaptic_op"]["convolution"] += 1


def less_silent(values: dict[str, Any]) -> None:
    first(values)["silent_fraction"] = 0.123


def saturated(values: dict[str, Any]) -> None:
    first(values)["saturated_fraction"] = 0.5


def faster(values: dict[str, Any]) -> None:
    values["execution"]["clips_per_second"] *= 2


def cheaper(values: dict[str, Any]) -> None:
    entry = next(entry for entry in values["energy"] if entry["total_mJ"] is not None)
    entry["total_mJ"] *= 0.5


def swapped(values: dict[str, Any]) -> None:
    """Confuse a clip with another class: top-1 is unchanged."""
    confusion = values["accuracy"]["confusion"]
    row = next(i for i, counts in enumerate(confusion) if sum(counts) > counts[i])
    column = next(j for j, count in enumerate(confusion[row]) if count and j != row)
    confusion[row][column] -= 1
    confusion[row][next(j for j in range(len(confusion)) if j not in (row, column))] += 1


def other_backend(values: dict[str, Any]) -> None:
    values["execution"]["backend"] = "lava"


def fewer_cores(values: dict[str, Any]) -> None:
    values["placement"]["cores"] -= 1


def more_chips(values: dict[str, Any]) -> None:
    values["placement"]["chips"] += 1


def wider_limit(values: dict[str, Any]) -> None:
    values["placement"]["limits"][0]["max"] *= 2


def unlisted_limit(values: dict[str, Any]) -> None:
    """The input axons, which nobody published: without them the run would seem to fit."""
    del values["placement"]["limits"][2]


def half_a_body(values: dict[str, Any]) -> None:
    values["totals"]["lanes"] += 0.5 / CLIPS


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (more_spikes, "spikes is .*, spikes.npz gives"),
        (more_spikes, "totals.spikes is .*, the layers give"),
        (more_deliveries, "totals.syn_ops is .*, the layers give"),
        (more_deliveries, "totals.syn_ops_by_kind is .*, the layers give"),
        (more_arrivals, "totals.memory_accesses is .*, the layers give"),
        (more_arrivals, "totals.addressing is .*, the layers give"),
        (dearer, "energy under sana-fe-loihi: terms is .*, the totals give"),
        (less_silent, "silent_fraction is 0.123, spikes.npz gives"),
        (saturated, "saturated_fraction is 0.5, spikes.npz gives 0"),
        (faster, "clips_per_second is .*, not clips / seconds"),
        (cheaper, "energy under horowitz45-fp32: total_mJ is .*, the totals give"),
        (swapped, "accuracy.confusion does not follow from the manifest's predictions and labels"),
        (other_backend, "execution.backend is 'lava', in manifest.json 'emulator'"),
        (fewer_cores, "placement.cores is .*, the layers have"),
        (more_chips, "placement.chips is .* cores are 1 of loihi2"),
        (wider_limit, "placement: neurons per core: limit 16384, loihi2 has 8192"),
        (unlisted_limit, "placement: input axons per core: not listed"),
        (half_a_body, "totals.lanes .* does not give a whole number of bodies"),
    ],
)
def test_a_figure_that_contradicts_the_others_is_named_though_all_hashes_fit(run, alter, fault):
    change(run, alter)
    result = check(run)
    with pytest.raises(FaultyRecordError, match=fault):
        result.raise_faults()
    assert not any("changed since" in str(fault) for fault in result.faults)


@pytest.mark.parametrize("name", totals_of([], clips=1, steps=1, latency_steps=0))
def test_each_changed_total_is_found(tmp_path, name):
    record = Record.model_validate(small_run())
    result = CheckResult(tmp_path)
    check_totals(result, record)
    assert result.passed, faults(result)
    totals = record.totals.model_copy(update={name: getattr(record.totals, name) * (1 + 1e-6) + 1e-6})
    check_totals(result, record.model_copy(update={"totals": totals}))
    assert f"totals.{name} is " in faults(result)


def spikes_changed(run: Path, alter: Callable[[dict[str, np.ndarray]], None]) -> CheckResult:
    with np.load(run / "spikes.npz") as file:
        arrays = {name: file[name] for name in file.files}
    alter(arrays)
    np.savez_compressed(run / "spikes.npz", **arrays)
    update_manifest(run, ["spikes.npz"])
    return check(run)


def test_counts_and_trains_must_agree_with_the_record_and_each_other(run):
    """The trains of the first eight bodies are kept; here these are all, so they must add up to the counts."""
    name = first(json.loads((run / "run.json").read_text()))["name"]

    def moved(arrays):  # the sum is unchanged: only the trains show it
        counts = arrays[f"counts/{name}"].ravel()
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1

    assert f"trains/{name}: 2 neurons have counts that differ from counts/{name}, for the same bodies" in faults(
        spikes_changed(run, moved)
    )


def test_an_unknown_population_shape_is_a_fault(run):
    name = first(json.loads((run / "run.json").read_text()))["name"]

    def flattened(arrays):
        arrays[f"counts/{name}"] = arrays[f"counts/{name}"].ravel()
        arrays[f"shape/{name}"] = arrays[f"shape/{name}"][:2]

    assert f"counts/{name}: int64 of shape" in faults(spikes_changed(run, flattened))


def test_an_unknown_energy_model_is_reported_and_is_no_fault(run):
    def renamed(values):
        values["energy"][0] |= {"model": "of-a-lab", "source": "a board", "prices": None}

    change(run, renamed)
    result = check(run)
    assert result.passed
    assert "energy under of-a-lab: no such energy model here" in "\n".join(result.lines())


def test_an_unknown_chip_is_reported_and_is_no_fault(run):
    def renamed(values):
        values["placement"]["chip"] = "of-a-lab"

    change(run, renamed)
    result = check(run)
    assert result.passed
    text = "\n".join(result.lines())
    assert "limits of of-a-lab: no such chip here; name its file (--chip-file)" in text
    assert "remark: run.json: fits what is published of of-a-lab; NOT CHECKED, no limit published: input axons" in text


def test_energies_are_recomputed_at_the_prices_of_the_record(run):
    """Whatever list of that name is known here."""
    known = known_models()
    others = [model.model_copy(update={"partly": ("syn_ops",)}) for model in known if model.name == "davies2018-loihi1"]
    result = check(run, models=others)
    assert result.passed, faults(result)
    remark = "run.json: energy under davies2018-loihi1: its prices differ from those of the model of that name here"
    assert [str(finding) for finding in result.remarks if "prices" in str(finding)] == [remark]
    assert f"{len(known)} energies from the totals" in "\n".join(result.checked)


def test_energies_of_records_without_prices_are_recomputed_by_their_source(tmp_path):
    """An energy as it was written before prices were kept, on paper: SANA-FE's list of 2023 under the name of today's."""
    source = model_named("sana-fe-loihi-2023").source
    terms = {
        "syn_ops": 3_000 * 35.5e-9,
        "coincidences": 22.5 * 35.5e-9,
        "neuron_updates": (989.5 * 51.2 + 222.5 * 142.1) * 1e-9,
        "spike_messages": 522.5 * 76.8e-9,
    }
    unpriced = ["host_macs", "neuron_updates", "spike_messages", "host_to_chip_spikes", "static_power"]
    old = {
        "model": "sana-fe-loihi", "evidence": "derived", "source": source, "terms": terms, "total_mJ": None,
        "total_every_step_mJ": None, "priced_mJ": sum(terms.values()), "unpriced": unpriced, "excludes": [],
    }  # fmt: skip
    result = CheckResult(tmp_path)
    check_energies(result, Record.model_validate(changed("energy", [old])))
    assert result.passed, faults(result)
    old["terms"] = {**terms, "syn_ops": 3_000 * 24e-9}
    check_energies(result, Record.model_validate(changed("energy", [old])))
    assert "energy under sana-fe-loihi: terms is" in faults(result)


def test_the_chain_is_found_by_hash_wherever_the_files_are(run, tmp_path):
    elsewhere = tmp_path / "store"
    elsewhere.mkdir()
    (run.parent / "model.nir").rename(elsewhere / "student.nir")
    (run.parent / "model.pt").rename(elsewhere / "teacherless.pt")
    lost = check(run)
    assert lost.passed
    assert [finding.where for finding in lost.unchecked if "not found; name its folder" in finding.what] == [
        "model",
        "parent",
    ]
    assert not check(run, strict=True).passed
    complete = check(run, near=[elsewhere], strict=True)
    assert complete.passed, faults(complete)
    assert f"model: {elsewhere / 'student.nir'} is the file that was run" in complete.checked


def test_a_parent_that_the_model_does_not_name_is_a_fault(run):
    def foreign(values):
        values["parents"] = ["c" * 64]

    change(run, foreign)
    result = check(run)
    assert "run.json: parents are ['cccc" in faults(result)
    assert "parents is" in faults(result)  # the manifest states the true ones
