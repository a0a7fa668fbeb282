"""Lava, in this sub-package alone: everything else of mksgn works without it. Lava is archived upstream; 0.10.0 is its last."""
