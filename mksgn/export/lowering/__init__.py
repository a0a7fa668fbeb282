"""Lowering of a trained student to a NIR graph, in the structured or the portable profile."""
