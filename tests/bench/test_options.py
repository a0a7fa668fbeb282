"""What --help lists is what the package brings."""

from mksgn.bench.claims import published_claims
from mksgn.bench.energy_models import known_models
from mksgn.bench.options import CLAIMS, ENERGY_MODELS


def test_names_are_those_of_the_files():
    assert tuple(model.name for model in known_models()) == ENERGY_MODELS
    assert tuple(claim.name for claim in published_claims()) == CLAIMS
