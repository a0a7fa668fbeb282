"""Populations on a chip's cores: tiles, axons, limits, and how full the cores are."""
