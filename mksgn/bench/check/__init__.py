"""Whether a run's folder can be trusted."""
