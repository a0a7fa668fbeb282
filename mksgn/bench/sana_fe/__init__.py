"""SANA-FE's results beside the emulator's: `python -m mksgn.bench.sana_fe` writes the tables of docs/sana-fe.md."""
