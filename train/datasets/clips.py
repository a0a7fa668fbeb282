"""The one clip object that every reader gives, and how a SOURCE on the command line finds its reader."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Clip:
    """One recorded action: the joints of every body that is present, in the sensor's coordinates.

    `joints` is (M, T, V, 3), float32, metres, M >= 1 bodies, T >= 1 frames, V joints in the order of the graph named `graph`
    in train/skeletons. `label` is a class number, 0-based. `subject` and `view` are the benchmark's own numbers (0: unknown).
    """

    name: str
    label: int
    joints: np.ndarray
    graph: str
    subject: int = 0
    view: int = 0


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips of one part of one split of one source; `classes` gives the names in label order."""

    source: str
    split: str
    part: str  # "train" or "test"
    graph: str
    classes: tuple[str, ...]
    clips: list[Clip] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> np.ndarray:
        """(clips,) int64."""
        return np.array([clip.label for clip in self.clips], dtype=np.int64)
