"""The choices that mksgn-bench's options offer, as data, so that --help imports nothing of what they select."""

from pathlib import Path

from mksgn.common.yaml_text import names_in

DATA = Path(__file__).parent / "data"
# only names; energy_models.py and claims.py read and check the files
ENERGY_MODELS = names_in(DATA / "energy_models.yaml", "models", "prices_pJ")  # an anchor alone is no price
CLAIMS = names_in(DATA / "claims.yaml", "claims")
PAPER_MODEL = "horowitz45-fp32"  # the energy model of the paper's formula (theory.py)
