"""Comparisons of executions of one file, decision by decision."""
