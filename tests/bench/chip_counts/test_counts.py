"""The counts file: validation, template, energy model, and the examples of docs/own-chip.md."""

import re
from typing import Any

import pytest
import yaml

from mksgn.bench.chip_counts.comparison import compare_chip
from mksgn.bench.chip_counts.counts import ChipCounts, model_of, models_file, read, template
from mksgn.bench.claims import ClaimsFile
from mksgn.bench.energy_models import ModelsFile, known_models, price
from mksgn.bench.manifest import load_manifest
from mksgn.common.errors import BadInputError
from tests.support.chip_readings import ENERGY, counts
from tests.support.paths import DOCS

PAGE = DOCS / "own-chip.md"


KINDS = {"mksgn.chip_counts/1": ChipCounts, "mksgn.energy_models/1": ModelsFile, "mksgn.claims/1": ClaimsFile}


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
def test_a_fault_in_a_file_is_reported_in_one_line(record, tmp_path, change, fault):
    values = counts(record).model_dump(by_alias=True, mode="json") | change
    path = tmp_path / "counts.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BadInputError, match=fault) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_the_template_lists_every_population_and_can_be_filled_in(record, folder, tmp_path):
    names = load_manifest(folder).data.clips
    values = yaml.safe_load(template(record, names))
    assert list(values["populations"]) == [layer.name for layer in record.layers if layer.place == "chip"]
    values |= dict.fromkeys(("chip", "board", "software", "method"), "told")
    values["populations"]["readout"]["spikes_in"] = 17
    path = tmp_path / "counts.json"
    path.write_text(yaml.safe_dump(values))
    comparison = compare_chip(record, read(path), clips=names)
    assert len(comparison.rows) == 1
    assert len(comparison.missing) == len(values["populations"]) - 1


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


def blocks() -> list[dict[str, Any]]:
    return [
        yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    ]


def test_the_examples_in_the_docs_are_valid_files():
    examples = blocks()
    assert {example["schema"] for example in examples} == set(KINDS)
    for example in examples:
        KINDS[example["schema"]].model_validate(example)
