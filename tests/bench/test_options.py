"""What --help lists is what the package brings."""

from mksgn.bench.choices import CLAIMS, ENERGY_MODELS, PAPER_MODEL
from mksgn.bench.claims import published_claims
from mksgn.bench.energy_models import known_models


def test_names_are_those_of_the_files():
    models = known_models()
    assert tuple(model.name for model in models if model.anchor is None) == ENERGY_MODELS
    assert (len(ENERGY_MODELS), PAPER_MODEL in ENERGY_MODELS) == (9, True)  # README counts them
    assert [model.name for model in models if model.anchor is not None] == ["loihi2-pilotnet"]
    assert tuple(claim.name for claim in published_claims()) == CLAIMS
