"""Readers of skeleton clips, one per format, found by the SOURCE of the command line."""

from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips
from mksgn.train.datasets.sources import SOURCES, open_source

__all__ = ["SOURCES", "Clip", "ClipSet", "LazyClips", "open_source"]
