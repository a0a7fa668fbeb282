"""Networks of lava-dl, read without lava-dl."""
