"""SANA-FE, an independent simulator of Loihi 1: the files that it reads, and its results beside ours (docs/sana-fe.md).

SANA-FE is licensed under the GPL. It runs as a program of its own (`simulate`), and nothing here imports it.
"""
