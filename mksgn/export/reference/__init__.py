"""The reference execution of a NIR graph, from NIR's equations alone."""
