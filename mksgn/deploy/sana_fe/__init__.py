"""A placed network and its input spikes as files of SANA-FE, an independent simulator of Loihi 1 (docs/sana-fe.md).

SANA-FE is licensed under the GPL. It runs as a separate program, through the script `simulate`, and nothing else
imports it. mksgn/bench/sana_fe compares its results with the emulator's.
"""
