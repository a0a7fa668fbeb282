"""A guard around Lava's runtime: every run ends, and leaves nothing behind."""
