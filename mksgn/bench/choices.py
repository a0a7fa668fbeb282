"""What the options of mksgn-bench offer, as data: its help imports nothing that they choose."""

PAPER_MODEL = "horowitz45-fp32"  # the energy model of the paper's formula (theory.py)
MOST_REPEATS = 1000  # a spread of times needs tens; progress.npz keeps a time of each
