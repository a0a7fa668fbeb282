"""The reader for networks of lava-dl, which does not need lava-dl."""
