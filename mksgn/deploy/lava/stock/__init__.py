"""A program in stock Lava Processes alone: a reference for spikes and for speed."""
