"""Sources of clips: one reader per format, selected by the SOURCE of the command line."""

from collections.abc import Callable

from mksgn.common.errors import BadInputError
from mksgn.train.choices import SOURCE_FORMS, SPLITS
from mksgn.train.datasets import ctrgcn_npz, ntu_skeleton, nw_ucla, pyskl_pkl, synthetic, utd_mhad
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, check_selection, spread

__all__ = ["SOURCES", "Clip", "ClipSet", "LazyClips", "open_source"]


Reader = Callable[[str, str | None, str, int | None, int], ClipSet]  # path, split, part, limit, seed
SOURCES: dict[str, Reader] = {  # by scheme; SOURCE_FORMS has what a user types
    "synthetic": lambda path, split, part, limit, seed: synthetic.read(limit, part, seed),
    "nw-ucla": lambda path, split, part, limit, seed: spread(
        nw_ucla.read(path, split or SPLITS["nw-ucla"][0], part), limit
    ),
    "ntu": lambda path, split, part, limit, seed: ntu_skeleton.read(path, split or SPLITS["ntu"][0], part, limit),
    "ctrgcn": lambda path, split, part, limit, seed: ctrgcn_npz.read(path, split, part, limit),
    "pyskl": lambda path, split, part, limit, seed: pyskl_pkl.read(path, split, part, limit),
    "utd-mhad": lambda path, split, part, limit, seed: spread(
        utd_mhad.read(path, split or SPLITS["utd-mhad"][0], part), limit
    ),
}


def open_source(
    source: str, *, split: str | None = None, part: str = "test", limit: int | None = None, seed: int = 0
) -> ClipSet:
    """Open the clips that SOURCE names.

    Args:
        source: `synthetic`, or a scheme and a path, such as `nw-ucla:PATH` (see SOURCE_FORMS).
        split: One of the source's; default: the first of SPLITS or, for a ctrgcn file, the one that
            its name tells.
        part: "train" or "test".
        limit: Number of clips. `synthetic` makes that many (default: 1000 to train, 200 to test).
            Of a larger recorded set, clips spread evenly over the list sorted by class and name
            are taken, always the same; a class keeps its share to within one clip.
        seed: Of the synthetic clips only.

    Raises:
        BadInputError: An unknown scheme, split or part, a limit below 1, or what the reader
            refuses.
    """
    scheme, colon, path = source.partition(":")
    read = SOURCES.get(scheme)
    if read is None:
        raise BadInputError(
            f"unknown source {source!r}: use one of {', '.join(SOURCE_FORMS.values())}{_arrays_hint(source)}"
        )
    takes_path = ":" in SOURCE_FORMS[scheme]
    if takes_path != bool(path) or (colon and not takes_path):
        raise BadInputError(f"source {source!r} must have the form {SOURCE_FORMS[scheme]}")
    check_selection(scheme, SPLITS[scheme], split, part, limit)
    return read(path, split, part, limit, seed)


def _arrays_hint(source: str) -> str:
    """Return a hint if a source is a file of arrays, which are not clips: students are not trained on them."""
    if source.endswith((".npz", ".npy")):
        return f"; for arrays of samples: {'npz' if source.endswith('.npz') else 'npy'}:{source}"
    return ""
