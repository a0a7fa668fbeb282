"""SANA-FE against the emulator: `python -m mksgn.bench.sana_fe` writes the tables of docs/sana-fe.md."""
