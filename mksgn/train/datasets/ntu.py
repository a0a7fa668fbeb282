"""What every reader of NTU RGB+D shares: the names of clips and classes, the benchmarks' splits and
published counts.

A clip is named SsssCcccPpppRrrrAaaa: setup, camera, performer (the subject), replication, action,
all from 1. Setups 1 to 17 hold actions 1 to 60, which is NTU RGB+D 60; setups 18 to 32 hold actions
61 to 120, and both together are NTU RGB+D 120. The two data sets share files, so the split says which
one a folder is read as:

    xsub, xview, xsub-val     60 classes: only actions up to 60 of setups up to 17, whatever else the folder holds
    xsub120, xset, xsub120-val     120 classes: every file

`xsub-val` and `xsub120-val` [ours] divide the *training* subjects of xsub and xsub120 once more, so
that a model can be selected without looking at the benchmark's test part.

Sources: Shahroudy et al., NTU RGB+D (CVPR 2016); Liu et al., NTU RGB+D 120 (TPAMI 2019); the
authors' repository, shahroudy/NTURGB-D, for the names of classes and the clips with missing
skeletons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mksgn.common.errors import BadInputError

GRAPH = "ntu-25"
SETUPS_60, ACTIONS_60 = 17, 60  # the last of NTU RGB+D 60
MISSING = Path(__file__).parents[1] / "data" / "ntu_missing.txt"
CLASSES = (  # A001 to A120; the first 60 are NTU RGB+D 60
    "drink water", "eat meal", "brush teeth", "brush hair", "drop", "pick up", "throw", "sit down", "stand up", "clap",
    "read", "write", "tear up paper", "put on jacket", "take off jacket", "put on a shoe", "take off a shoe",
    "put on glasses", "take off glasses", "put on a hat", "take off a hat", "cheer up", "wave hand", "kick something",
    "reach into pocket", "hop", "jump up", "phone call", "play with phone", "type on a keyboard", "point to something",
    "take a selfie", "check time", "rub two hands", "nod head or bow", "shake head", "wipe face", "salute",
    "put palms together", "cross hands in front", "sneeze or cough", "stagger", "fall", "touch head", "touch chest",
    "touch back", "touch neck", "nausea or vomiting", "fan self", "punch or slap other person", "kick other person",
    "push other person", "pat other person's back", "point finger at other person", "hug other person",
    "give something to other person", "touch other person's pocket", "shake hands", "walk towards each other",
    "walk apart from each other",
    "put on headphone", "take off headphone", "shoot at the basket", "bounce ball", "tennis bat swing",
    "juggle table tennis balls", "hush", "flick hair", "thumb up", "thumb down", "make ok sign", "make victory sign",
    "staple book", "count money", "cut nails", "cut paper", "snap fingers", "open bottle", "sniff", "squat down",
    "toss a coin", "fold paper", "ball up paper", "play magic cube", "apply cream on face", "apply cream on hand back",
    "put on bag", "take off bag", "put something into a bag", "take something out of a bag", "open a box",
    "move heavy objects", "shake fist", "throw up cap", "hands up", "cross arms", "arm circles", "arm swings",
    "run on the spot", "butt kicks", "cross toe touch", "side kick", "yawn", "stretch oneself", "blow nose",
    "hit other person with something", "wield knife towards other person", "knock over other person",
    "grab other person's stuff", "shoot at other person with a gun", "step on foot", "high-five", "cheers and drink",
    "carry something with other person", "take a photo of other person", "follow other person",
    "whisper in other person's ear", "exchange things with other person", "support somebody with one's hand",
    "finger-guessing game",
)  # fmt: skip

_FORM = "SsssCcccPpppRrrrAaaa (setup, camera, performer, replication, action)"
_NAME = re.compile(r"S([0-9]{3})C([0-9]{3})P([0-9]{3})R([0-9]{3})A([0-9]{3})")


@dataclass(frozen=True, order=True)
class ClipName:
    """The five numbers in a clip's name, all from 1; sorted as the names are."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    @classmethod
    def parse(cls, name: str) -> ClipName:
        """Parse a name; raises BadInputError for another form, or an action that is not among the
        120."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadInputError(f"{name}: the name of a clip must have the form {_FORM}: rename or remove it")
        parsed = cls(*map(int, match.groups()))
        if not 1 <= parsed.action <= len(CLASSES):
            raise BadInputError(f"{name}: unknown action {parsed.action}, expected 1 to {len(CLASSES)}: remove it")
        return parsed

    def __str__(self) -> str:
        return f"S{self.setup:03d}C{self.camera:03d}P{self.subject:03d}R{self.replication:03d}A{self.action:03d}"

    @property
    def label(self) -> int:
        """Class number, 0-based."""
        return self.action - 1


@dataclass(frozen=True)
class Split:
    """Which clips belong to which part: the values that one number of the name takes in each."""

    by: str  # field of ClipName
    train: tuple[int, ...]
    test: tuple[int, ...]
    classes: int
    validation: bool = False  # both parts lie inside the training part of a benchmark

    def part(self, name: ClipName) -> str | None:
        """Find the clip's part, "train" or "test"; None if the benchmark does not have the clip."""
        if self.classes == ACTIONS_60 and (name.setup > SETUPS_60 or name.action > ACTIONS_60):
            return None
        number = getattr(name, self.by)
        return "train" if number in self.train else "test" if number in self.test else None


def _others(chosen: tuple[int, ...], among: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(number for number in among if number not in chosen)


_SUBJECTS_60, _SUBJECTS_120 = tuple(range(1, 41)), tuple(range(1, 107))
# The official lists of the two papers, as CTR-GCN's seq_transformation.py gives them.
_TRAIN_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
_TRAIN_120 = (
    *_TRAIN_60, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92,
    93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
# [ours]: a fifth of the training subjects, with many setups and with one; 13 % of clips
_HELD_OUT_60 = (13, 18, 28, 35)
_HELD_OUT_120 = (*_HELD_OUT_60, 49, 58, 82, 97)  # [ours]
_SETUPS = tuple(range(1, 33))
SPLITS: dict[str, Split] = {
    "xsub": Split("subject", _TRAIN_60, _others(_TRAIN_60, _SUBJECTS_60), 60),
    "xview": Split("camera", (2, 3), (1,), 60),
    "xsub-val": Split("subject", _others(_HELD_OUT_60, _TRAIN_60), _HELD_OUT_60, 60, validation=True),
    "xsub120": Split("subject", _TRAIN_120, _others(_TRAIN_120, _SUBJECTS_120), 120),
    "xset": Split("setup", _SETUPS[1::2], _SETUPS[::2], 120),
    "xsub120-val": Split("subject", _others(_HELD_OUT_120, _TRAIN_120), _HELD_OUT_120, 120, validation=True),
}


@dataclass(frozen=True)
class Count:
    """Number of clips of one part: as recorded, and without those whose skeletons are missing."""

    recorded: int
    usable: int


# NTU RGB+D 60: recorded as in the CVPR paper, usable as in the field's prepared files (ST-GCN and
# those after it). NTU RGB+D 120: usable as in the field's prepared files (CTR-GCN, pyskl); its
# paper gives no counts, so recorded is the sum of usable and the listed clips, which gives whole
# multiples of the 360 clips of a subject in a setup, 114,480 in all.
PUBLISHED: dict[str, dict[str, Count]] = {
    "xsub": {"train": Count(40_320, 40_091), "test": Count(16_560, 16_487)},
    "xview": {"train": Count(37_920, 37_646), "test": Count(18_960, 18_932)},
    "xsub120": {"train": Count(63_360, 63_026), "test": Count(51_120, 50_919)},
    "xset": {"train": Count(54_720, 54_468), "test": Count(59_760, 59_477)},
}


def classes(split: str) -> tuple[str, ...]:
    """Return the 60 or 120 class names of `split`, in label order."""
    return CLASSES[: SPLITS[split].classes]


@cache
def missing() -> frozenset[ClipName]:
    """Read the list of the 535 clips whose skeletons the data set's authors name as missing or
    incomplete; 302 are of the first 60 classes."""
    lines = MISSING.read_text(encoding="ascii").splitlines()
    return frozenset(ClipName.parse(line) for line in lines if line and not line.startswith("#"))


def select(names: Iterable[ClipName], split: str, part: str) -> tuple[list[ClipName], int]:
    """Select the names in `part` of `split`, sorted, and count those left out as listed in
    `missing`."""
    chosen = sorted(name for name in names if SPLITS[split].part(name) == part)
    usable = [name for name in chosen if name not in missing()]
    return usable, len(chosen) - len(usable)


def count_note(split: str, part: str, clips: int) -> str:
    """Write the number of clips next to the published number, which leaves out missing
    skeletons."""
    if split not in PUBLISHED:
        return f"split {split}, {part}: {clips:,} clips; the split is our own, no count is published"
    published = PUBLISHED[split][part].usable
    return f"split {split}, {part}: {clips:,} clips, published {published:,}"


def missing_note(left_out: int) -> str:
    """Write how many clips `select` left out."""
    return f"left out {left_out:,} clips that the data set's authors list as having missing skeletons"
