"""Fourth stage: count events of a run, price them, and compare them with published figures."""
