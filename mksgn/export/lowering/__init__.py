"""Lowering a trained student to a NIR graph: supported modules, folding, and the portable profile."""
