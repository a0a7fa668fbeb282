"""Check whether a run's folder can be trusted."""
