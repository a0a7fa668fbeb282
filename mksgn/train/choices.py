"""What the options of mksgn-train offer, as data: its help imports nothing that they choose."""

PRESET_NAMES = ("demo", "small", "base", "frugal", "paper")  # the files of data/presets; the first is the default
SOURCE_FORMS = {  # SOURCE as a user types it, by its scheme; mksgn/train/datasets/sources.py has the readers
    "synthetic": "synthetic",
    "nw-ucla": "nw-ucla:PATH",
    "ntu": "ntu:PATH",
    "ctrgcn": "ctrgcn:FILE.npz",
    "pyskl": "pyskl:FILE.pkl",
    "utd-mhad": "utd-mhad:PATH",
}
SPLITS = {  # by scheme; the first is the default, but that of a ctrgcn file, which is in its name
    "synthetic": ("synthetic",),
    "nw-ucla": ("xview", "view1-2", "subject-val"),
    "ntu": ("xsub", "xview", "xsub-val", "xsub120", "xset", "xsub120-val"),
    "ctrgcn": ("xsub", "xview", "xsub120", "xset"),
    "pyskl": ("xsub", "xview", "xsub120", "xset"),
    "utd-mhad": ("xsub", "xsub-val"),
}
BITS = range(2, 9)  # widths of a quantised weight, sign included
NO_MODEL = "make one with mksgn-train --out DIR"  # where there is no file
