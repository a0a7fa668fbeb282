"""Executions of one file compared decision by decision."""
