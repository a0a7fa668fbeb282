"""A program in stock Lava Processes alone: an oracle and a yardstick."""
