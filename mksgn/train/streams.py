"""The network's input from joints: four streams, their normalisation, and the rounding to 8 bits.

A stream is named, never positional (the sibling models' feeders return them in different orders,
PAPER.md trap 4). Each has three coordinates, so that one body of one clip is (12, T, V) in the
order of `STREAMS`.

Normalisation uses constants of the training clips, not a batch norm: a per-joint batch norm cannot
be folded into the encoder's padded convolution [ours]. Each stream has a `unit` (metres, or metres
per frame). A value becomes the integer round(value / unit), clamped to [-127, 127], times
2**LATTICE_EXPONENT. Float32 holds such values exactly, so that sums in the encoder do not depend on
their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mksgn.common.errors import BadInputError
from mksgn.common.progress import track
from mksgn.common.quoting import quoted
from mksgn.train.datasets.clips import Clip, check_finite
from mksgn.train.skeletons import bone_pairs, graph

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
LATTICE_EXPONENT = -5  # the input's finest step, 1/32: the largest value, 127/32, is about 4
LATTICE_EXPONENTS = (-30, 0)  # float32 holds 127 times such a step exactly
INTEGER_LIMIT = 127
MOST_FRAMES = 4096  # of a network's input; the longest clip of NTU RGB+D has 300
PERCENTILE = 99.9  # of |value| over the training clips; larger values saturate
FITTED_CLIPS = 4096  # a percentile over more clips would not differ, and would not fit in memory


def check_streams(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sort stream names in the order of `STREAMS`; raises BadInputError for an empty list, an unknown name or a
    repeated one."""
    if (
        not names
        or len(names) != sum(names.count(name) for name in STREAMS)
        or any(names.count(s) > 1 for s in STREAMS)
    ):
        raise BadInputError(f"streams {list(names)}: name at least one, and each at most once, of {', '.join(STREAMS)}")
    return tuple(name for name in STREAMS if name in names)


def resize(joints: np.ndarray, frames: int) -> np.ndarray:
    """Resample (M, T, V, 3) to (M, frames, V, 3), linear between frames; the first and last frame
    are kept."""
    position = np.linspace(0.0, joints.shape[1] - 1.0, frames)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, joints.shape[1] - 1)
    weight = (position - low).astype(np.float32)[:, None, None]
    return joints[:, low] * (1.0 - weight) + joints[:, high] * weight


def centred(joints: Tensor, centre: int) -> Tensor:
    """Subtract from joints (B, M, T, V, 3) the centre joint of the first body's first frame [sibling]."""
    return joints - joints[:, :1, :1, centre : centre + 1]


def four_streams(joints: Tensor, parents: np.ndarray, centre: int) -> Tensor:
    """Compute the streams (B, M, 4, 3, T, V), in the order of `STREAMS`, of joints (B, M, T, V, 3),
    in metres.

    The centre joint of the first body's first frame is the origin [sibling]; a bone runs from the
    parent to the child; motion is the difference to the next frame, 0 in the last one [sibling].
    """
    joint = centred(joints, centre)
    bone = joints - joints[:, :, :, torch.as_tensor(parents, device=joints.device)]

    def motion(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], dim=2)

    stacked = torch.stack([joint, bone, motion(joint), motion(bone)], dim=2)  # (B, M, 4, T, V, 3)
    return stacked.permute(0, 1, 2, 5, 3, 4)


@dataclass(frozen=True)
class StreamNormaliser:
    """Maps raw joints to the network's input; stored in model.pt and in the NIR Input's metadata.

    `units` gives metres (per frame for the motions) per integer step by stream name, for the
    network's streams only.
    """

    graph: str
    frames: int
    units: dict[str, float]
    lattice_exponent: int = LATTICE_EXPONENT

    def __post_init__(self) -> None:
        graph(self.graph)  # raises BadInputError
        for name, value, least, most in (
            ("frames", self.frames, 2, MOST_FRAMES),
            ("lattice_exponent", self.lattice_exponent, *LATTICE_EXPONENTS),
        ):
            if type(value) is not int or not least <= value <= most:
                raise BadInputError(f"normaliser: {name} is {quoted(value)}, expected {least} to {most}")
        ordered = tuple(self.units) == check_streams(tuple(self.units))
        if not ordered or not all(_is_unit(unit) for unit in self.units.values()):
            raise BadInputError(
                f"stream units {quoted(self.units)}: expected a positive number for each stream, in the order "
                f"{', '.join(STREAMS)}"
            )

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.units)

    @classmethod
    def fit(cls, clips: Sequence[Clip], frames: int, streams: tuple[str, ...] = STREAMS) -> StreamNormaliser:
        """Fit the units to training clips; for a very large set, to clips spread evenly over it."""
        every = range(0, len(clips), -(-len(clips) // FITTED_CLIPS))
        name = clips[0].graph
        skeleton, parents = graph(name), bone_pairs(graph(name))
        values: list[list[np.ndarray]] = [[] for _ in STREAMS]
        for index in track(every, len(every), "clips measured for the input's units"):
            joints = torch.from_numpy(resize(check_joints(clips[index]), frames)[None])
            every_stream = four_streams(joints, parents, skeleton.centre).numpy()
            for i in range(len(STREAMS)):
                values[i].append(np.abs(every_stream[:, :, i]).ravel())
        limits = {s: float(np.percentile(np.concatenate(v), PERCENTILE)) for s, v in zip(STREAMS, values, strict=True)}
        return cls(name, frames, {s: max(limits[s], 1e-6) / INTEGER_LIMIT for s in check_streams(streams)})

    def __call__(self, joints: Tensor) -> Tensor:
        """Map joints (B, M, frames, V, 3), in metres, to (B, M, 3 · streams, frames, V) float32 on
        the input's lattice."""
        skeleton = graph(self.graph)
        streams = four_streams(joints, bone_pairs(skeleton), skeleton.centre)
        if len(self.units) < len(STREAMS):
            streams = streams[:, :, [STREAMS.index(name) for name in self.units]]
        units = torch.tensor(list(self.units.values()), dtype=torch.float32, device=joints.device).view(-1, 1, 1, 1)
        integers = torch.round(streams / units).clamp_(-INTEGER_LIMIT, INTEGER_LIMIT)
        return integers.mul_(2.0**self.lattice_exponent).flatten(2, 3).contiguous()

    def check(self, clip: Clip) -> np.ndarray:
        """Return a clip's joints (M, T, V, 3) float32; raises BadInputError for joints that do not fit the graph."""
        if clip.graph != self.graph:
            raise BadInputError(
                f"{clip.name}: joints of graph {clip.graph}, but the model was trained on {self.graph}; "
                f"give clips of {self.graph}"
            )
        return check_joints(clip)

    def clip(self, clip: Clip) -> np.ndarray:
        """Map a clip to (M, 3 · streams, frames, V); raises BadInputError as `check`."""
        return self(torch.from_numpy(resize(self.check(clip), self.frames)[None]))[0].numpy()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StreamNormaliser:
        """Undo `to_dict`. Raises BadInputError for an entry that is missing, of another type or out of range."""
        try:
            units = {name: float(values["units"][name]) for name in check_streams(tuple(values["units"]))}
            entries = (values["graph"], values["frames"], values["lattice_exponent"])
        except BadInputError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise BadInputError(
                f"normaliser {quoted(values)}: expected graph, frames, units by stream and lattice_exponent"
            ) from error
        skeleton, frames, lattice_exponent = entries
        return cls(str(skeleton), frames, units, lattice_exponent)


def _is_unit(unit: object) -> bool:
    """Tell whether a number can be a stream's unit: its reciprocal has to be a float32 too."""
    return isinstance(unit, float) and 1e-30 < unit < 1e30


def check_joints(clip: Clip) -> np.ndarray:
    """Return the clip's joints, (M, T, V, 3) float32; raises BadInputError that names the first
    fault."""
    joints, expected = np.asarray(clip.joints, dtype=np.float32), len(graph(clip.graph).joints)
    if joints.ndim != 4 or joints.shape[3] != 3 or 0 in joints.shape:
        raise BadInputError(f"{clip.name}: joints have shape {joints.shape}, expected (bodies, frames, joints, 3)")
    if joints.shape[2] != expected:
        raise BadInputError(
            f"{clip.name}: {joints.shape[2]} joints, but {clip.graph} has {expected}; name the graph that "
            "the clip was recorded with"
        )
    check_finite(clip.name, joints)
    return joints
