"""Choices of mksgn-train's options, as data, so that --help imports nothing that they select."""

PRESET_NAMES = ("demo", "small", "base", "frugal", "paper")  # the files of data/presets; the first is the default
SOURCE_FORMS = {  # SOURCE as a user types it, by its scheme; mksgn/train/datasets/sources.py has the readers
    "synthetic": "synthetic",
    "nw-ucla": "nw-ucla:PATH",
    "ntu": "ntu:PATH",
    "ctrgcn": "ctrgcn:FILE.npz",
    "pyskl": "pyskl:FILE.pkl",
    "utd-mhad": "utd-mhad:PATH",
}
SPLITS = {  # by scheme; the first is the default, except for a ctrgcn file, whose name tells its split
    "synthetic": ("synthetic",),
    "nw-ucla": ("xview", "view1-2", "subject-val"),
    "ntu": ("xsub", "xview", "xsub-val", "xsub120", "xset", "xsub120-val"),
    "ctrgcn": ("xsub", "xview", "xsub120", "xset"),
    "pyskl": ("xsub", "xview", "xsub120", "xset"),
    "utd-mhad": ("xsub", "xsub-val"),
}
BITS = range(2, 9)  # widths of a quantised weight, sign included
NO_MODEL = "make one with mksgn-train --out DIR"  # remedy for a missing file
