"""A trained student becomes a NIR graph: what may be lowered, how it is folded, and the portable profile."""
