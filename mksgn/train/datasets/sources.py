"""Where clips come from: one reader per format, found by the SOURCE of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import ctrgcn_npz, ntu, ntu_skeleton, nw_ucla, pyskl_pkl, synthetic
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, spread

__all__ = ["SOURCES", "Clip", "ClipSet", "LazyClips", "open_source"]


@dataclass(frozen=True)
class Source:
    """A scheme that SOURCE may begin with. Without a split named, the first is meant, or what the
    file itself is one of."""

    form: str  # as a user writes it
    splits: tuple[str, ...]
    open: Callable[[str, str | None, str, int | None, int], ClipSet]  # path, split, part, limit, seed


def _open_synthetic(path: str, split: str | None, part: str, limit: int | None, seed: int) -> ClipSet:
    return synthetic.read(limit, part, seed)


def _open_nw_ucla(path: str, split: str | None, part: str, limit: int | None, seed: int) -> ClipSet:
    return spread(nw_ucla.read(path, split or next(iter(nw_ucla.SPLITS)), part), limit)


def _open_ntu(path: str, split: str | None, part: str, limit: int | None, seed: int) -> ClipSet:
    return ntu_skeleton.read(path, split or next(iter(ntu.SPLITS)), part, limit)


def _open_ctrgcn(path: str, split: str | None, part: str, limit: int | None, seed: int) -> ClipSet:
    return ctrgcn_npz.read(path, split, part, limit)


def _open_pyskl(path: str, split: str | None, part: str, limit: int | None, seed: int) -> ClipSet:
    return pyskl_pkl.read(path, split, part, limit)


SOURCES: dict[str, Source] = {
    "synthetic": Source("synthetic", (synthetic.SPLIT,), _open_synthetic),
    "nw-ucla": Source("nw-ucla:PATH", tuple(nw_ucla.SPLITS), _open_nw_ucla),
    "ntu": Source("ntu:PATH", tuple(ntu.SPLITS), _open_ntu),
    "ctrgcn": Source("ctrgcn:PATH", ctrgcn_npz.SPLITS, _open_ctrgcn),
    "pyskl": Source("pyskl:PATH", pyskl_pkl.SPLITS, _open_pyskl),
}


def open_source(
    source: str, *, split: str | None = None, part: str = "test", limit: int | None = None, seed: int = 0
) -> ClipSet:
    """The clips that SOURCE names: `synthetic`, or a scheme and a path, such as `nw-ucla:PATH` (see
    SOURCES).

    `part` is "train" or "test"; `split` is one of the source's own, by default its first (nw-ucla:
    xview; ntu and pyskl: xsub), or of a ctrgcn file the one that its name says. `limit` is the
    number of clips wanted: synthetic makes that many (by default 1000 to train, 200 to test) from
    `seed`; of a larger recorded set it takes a selection spread evenly over its list sorted by
    class and name, the same each time (`seed` has no part in it), in which a class keeps its share
    to within one clip. Raises BadInputError for a scheme, split, part or limit that does not exist,
    and for what the reader refuses.
    """
    scheme, colon, path = source.partition(":")
    known = SOURCES.get(scheme)
    if known is None:
        forms = ", ".join(each.form for each in SOURCES.values())
        raise BadInputError(f"unknown source {source!r}: use one of {forms}")
    takes_path = ":" in known.form
    if takes_path != bool(path) or (colon and not takes_path):
        raise BadInputError(f"source {source!r} must have the form {known.form}")
    if split is not None and split not in known.splits:
        raise BadInputError(f"{scheme} has no split {split!r}: use one of {', '.join(known.splits)}")
    if part not in ("train", "test"):
        raise BadInputError(f"{scheme} has no part {part!r}: use train or test")
    if limit is not None and limit < 1:
        raise BadInputError(f"limit {limit} leaves no clip: it must be at least 1")
    return known.open(path, split, part, limit, seed)
