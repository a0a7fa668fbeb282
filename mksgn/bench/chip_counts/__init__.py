"""A chip's own counters, compared with a run's."""
