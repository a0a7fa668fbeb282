"""mksgn/bench/claims: the published figures, files of further ones, and a published energy at other prices."""

import json

import jsonschema
import pytest
import yaml

from mksgn.bench.choices import DATA
from mksgn.bench.claims import SCHEMA, ClaimsFile, Published, published_claims, reprice
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import json_schema_of

OWN = """
schema: mksgn.claims/1
claims:
  - {name: our budget, quantity: energy, value: 20, unit: mJ, version: r1, grade: own, source: data sheet,
     energy_model: davies2018-loihi1}
"""


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


def test_what_the_published_energy_becomes_at_other_prices():
    v5, _, reduction = published_claims()[:3]
    assert reduction.reference_mJ is not None
    becomes = {row.model: row for row in reprice(v5, reduction.reference_mJ)}
    assert becomes["horowitz45-fp32"].energy_mJ == pytest.approx(0.596)
    assert becomes["horowitz45-fp32"].reduction == pytest.approx(0.983, abs=1e-3)
    assert becomes["horowitz45-int32add"].energy_mJ == pytest.approx(0.066, abs=5e-4)
    assert becomes["davies2018-loihi1"].energy_mJ == pytest.approx(15.6, abs=0.05)
    assert becomes["davies2018-loihi1"].reduction == pytest.approx(0.55, abs=5e-3)
    assert becomes["sana-fe-loihi-2023"].energy_mJ == pytest.approx(23.5, abs=0.05)
    assert becomes["sana-fe-loihi-2023"].reduction == pytest.approx(0.33, abs=5e-3)
    # by kind of synapse, which the figure does not tell apart
    by_kind = {name: row.energy_mJ for name, row in becomes.items() if name.startswith("sana-fe-loihi,")}
    assert by_kind == pytest.approx(
        {"sana-fe-loihi, all dense": 23.5, "sana-fe-loihi, all sparse": 22.2, "sana-fe-loihi, all convolution": 15.9},
        abs=0.06,
    )
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
        (
            {"benchmark": {"sources": ["ntu"], "split": "xsub", "clips": 1}},
            "benchmark belongs to a figure of quantity accuracy",
        ),
        ({"value": 0}, "greater than 0"),
        ({"grade": "heard"}, "Input should be 'paper', 'review' or 'own'"),
    ],
)  # fmt: skip
def test_a_figure_that_contradicts_itself_is_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        Published.model_validate({**published_claims()[0].model_dump(), **changes})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (OWN.replace("our budget", "'energy per sample, v5'"), "exists already"),
        (OWN.replace("value: 20", "value: -20"), "our budget: claims.0.value: .* greater than 0; got -20"),
        (OWN.replace("energy_model:", "energy_modell:"), "our budget: claims.0.energy_modell: Extra inputs"),
        (OWN.replace("grade: own", "grade: heard"), "our budget: .*; got 'heard'"),
        (OWN.replace("claims/1", "claims/2"), "schema is 'mksgn.claims/2', this version reads 'mksgn.claims/1'"),
    ],
)  # fmt: skip
def test_a_file_of_claims_with_a_fault_is_refused_in_one_line(tmp_path, text, fault):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BadInputError, match=f"own.yaml: .*{fault}") as error:
        published_claims([tmp_path / "own.yaml"])
    assert "\n" not in str(error.value)


def test_the_schema_checked_in_is_the_code_s_and_accepts_our_file():
    schema = (DATA / "claims.schema.json").read_text(encoding="utf-8")
    assert schema == json_schema_of(ClaimsFile, SCHEMA, "validation") + "\n", "run make schema"
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    validator.check_schema(json.loads(schema))
    for text in ((DATA / "claims.yaml").read_text(encoding="utf-8"), OWN):
        validator.validate(yaml.safe_load(text))
    assert not validator.is_valid(yaml.safe_load(OWN.replace("grade: own", "grade: heard")))
