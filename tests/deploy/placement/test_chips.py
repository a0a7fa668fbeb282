"""mksgn/deploy/placement/chips: the published limits, each with its source, and the files that state them."""

import importlib.util
import json
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest
import yaml

from mksgn.common.errors import BadInputError
from mksgn.common.schemas import json_schema_of
from mksgn.deploy.choices import CHIPS_FILE
from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chip_file import SCHEMA, ChipsFile, Limits, markdown
from mksgn.deploy.placement.chips import CHIPS, LOIHI1, LOIHI2, Chip, chip_named, entries, known_chips
from mksgn.export import loihi as ranges
from tests.support.paths import DOCS, EXAMPLES


def test_limits_of_loihi_1():
    assert (LOIHI1.cores, LOIHI1.neurons_per_core, LOIHI1.synaptic_bits_per_core) == (128, 1024, 2**20)
    assert (LOIHI1.input_axons_per_core, LOIHI1.output_axons_per_core) == (4096, 4096)
    assert (LOIHI1.spike_bits, LOIHI1.neurons) == (1, "fixed")
    assert "nengo-loihi" in LOIHI1.source


def test_limits_of_loihi_2():
    assert (LOIHI2.cores, LOIHI2.neurons_per_core, LOIHI2.synaptic_bits_per_core) == (128, 8192, 192 * 2**13)
    assert (LOIHI2.input_axons_per_core, LOIHI2.output_axons_per_core) == (None, None)  # not published
    assert (LOIHI2.spike_bits, LOIHI2.neurons) == (32, "microcode")
    assert "second-hand" in LOIHI2.source


def test_limits_of_truenorth():
    chip = CHIPS["truenorth"]
    assert (chip.cores, chip.neurons_per_core, chip.synaptic_bits_per_core, chip.bits_per_synapse) == (
        4096,
        256,
        2**16,
        1,
    )
    assert (chip.input_axons_per_core, chip.output_axons_per_core, chip.cores_per_neuron) == (256, 256, 1)
    assert (chip.weight_limit, chip.weight_step, chip.weights_per_neuron) == (255, 1, 4)
    assert (chip.decay_limit, chip.bias_limit, chip.delay, chip.spike_bits) == (0, 255, 14, 1)


def test_meshes():
    assert (LOIHI1.mesh.columns, LOIHI1.mesh.rows, LOIHI1.mesh.cores_per_tile) == (8, 4, 4)
    assert LOIHI2.mesh is None
    for chip in CHIPS.values():
        if chip.mesh is not None:
            assert chip.mesh.columns * chip.mesh.rows * chip.mesh.cores_per_tile == chip.cores


@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=["loihi1", "loihi2"])
def test_widths_are_those_that_the_exporter_quantises_for(chip):
    assert chip.weight_limit == ranges.WEIGHT_LIMIT == 254
    assert chip.threshold_limit == ranges.THRESHOLD_LIMIT == 131_071
    assert chip.bias_limit == ranges.BIAS_MANTISSA_LIMIT == 4_095
    assert chip.bias_exponent == ranges.BIAS_EXPONENT_LIMIT == 7
    assert chip.decay_limit == 2**ranges.DECAY_BITS - 1 == 4_095
    assert chip.delay == 62


def test_the_delay_is_the_one_that_lava_dl_clips_at():
    spec = importlib.util.find_spec("lava")  # found, and not imported: that takes seconds
    files = [Path(folder, "lib/dl/netx/hdf5.py") for folder in spec.submodule_search_locations] if spec else []
    sources = [path.read_text() for path in files if path.is_file()]
    if not sources:
        pytest.skip("lava-dl is not installed")
    assert f"a_max={LOIHI1.delay})" in sources[0]
    assert LOIHI1.delay == LOIHI2.delay


def test_chips_by_name():
    assert {name: chip.name for name, chip in CHIPS.items()} == {n: n for n in ("loihi1", "loihi2", "truenorth")}
    assert chip_named("loihi1") is LOIHI1
    assert chip_named("loihi2") is LOIHI2


@pytest.mark.parametrize("name", ["loihi3", "", "Loihi2"])
def test_an_unknown_chip_is_refused_with_the_known_ones(name):
    with pytest.raises(DeployError, match=f"chip '{name}' is not known; choose one of loihi1, loihi2"):
        chip_named(name)


# --- the file ------------------------------------------------------------------------------------------------


def test_the_schema_checked_in_is_the_code_s_and_accepts_our_file():
    schema = CHIPS_FILE.with_name("chips.schema.json").read_text(encoding="utf-8")
    assert schema == json_schema_of(ChipsFile, SCHEMA, "validation") + "\n", "run make schema"
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    validator.check_schema(json.loads(schema))
    validator.validate(yaml.safe_load(CHIPS_FILE.read_text(encoding="utf-8")))


def test_the_page_has_the_table_that_the_code_writes():
    page = (DOCS / "ENERGY.md").read_text(encoding="utf-8")
    table = page.partition("<!-- chips -->\n")[2].partition("\n<!-- /chips -->")[0]
    assert table == markdown(entries()), "put what chip_file.markdown(entries()) returns between the page's marks"


def test_the_example_of_a_lab_is_a_chip_and_says_that_it_is_invented():
    chip = chip_named("our-chip", known_chips([EXAMPLES / "own_chip" / "chip.yaml"]))
    assert chip.delay is None
    assert "INVENTED" in (EXAMPLES / "own_chip" / "chip.yaml").read_text(encoding="utf-8")


def test_every_limit_of_the_file_is_a_field_of_the_chip_and_keeps_its_evidence():
    assert set(Limits.model_fields) <= {field.name for field in fields(Chip)}
    for entry in entries():
        chip = CHIPS[entry.name]
        for name, limit in entry.limits:
            assert chip.stated.get(name) == limit
            if limit is not None:
                assert getattr(chip, name) == limit.value
                assert limit.source in chip.source


SMALL = """schema: mksgn.chips/1
chips:
  - name: {name}
    limits:
      cores: {{value: 4, evidence: measured, source: a board}}
      neurons_per_core: {{value: {neurons}, evidence: {evidence}, source: a board}}
    neurons: {{kind: fixed, evidence: declared, source: a board}}
{more}"""


def small(path: Path, *, name="ours", neurons="8", evidence="measured", more="") -> Path:
    path.write_text(SMALL.format(name=name, neurons=neurons, evidence=evidence, more=more))
    return path


def test_a_file_adds_chips_and_what_it_leaves_out_is_not_published(tmp_path):
    chips = known_chips([small(tmp_path / "chips.yaml")])
    chip = chip_named("ours", chips)
    assert [c.name for c in chips] == [*CHIPS, "ours"]
    assert chip.core_limits == (8, None, None, None)
    assert (chip.weight_limit, chip.decay_limit, chip.threshold_limit, chip.bias_limit) == (None,) * 4
    assert (chip.delay, chip.bias_exponent, chip.spike_bits, chip.mesh) == (None,) * 4
    assert (chip.bits_per_synapse, chip.weight_step) == (8, 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "loihi2"}, "a chip named 'loihi2' exists already; choose another name"),
        ({"name": "a/b"}, "a/b: chips.0.name: String should match pattern"),
        ({"neurons": "0"}, "ours: chips.0.limits.neurons_per_core.value: Input should be greater than or equal to 1"),
        ({"evidence": "guessed"}, "ours: chips.0.limits.neurons_per_core.evidence: Input should be 'measured'"),
        ({"more": "    speed: 3"}, "ours: chips.0.speed: Extra inputs are not permitted"),
        (
            {"more": "    mesh: {columns: 1, rows: 1, cores_per_tile: 3, evidence: declared, source: a board}"},
            "ours: chips.0: mesh: 1 x 1 tiles of 3 hold fewer than 4 cores",
        ),
    ],
)
def test_a_fault_of_a_file_is_named_in_one_line(tmp_path, changes, fault):
    path = small(tmp_path / "chips.yaml", **changes)
    with pytest.raises(BadInputError) as error:
        known_chips([path])
    assert str(error.value).startswith(f"{path}: {fault}")
    assert "\n" not in str(error.value)
