"""The sample clip: its skeleton frame by frame, and the spike rasters of all populations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.bench.report.raster import Raster, populations, raster_of, sample_joints
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable
from mksgn.common.words import counted
from mksgn.deploy.run_files import SPIKES_FILE
from mksgn.train.skeletons import GRAPHS, SkeletonGraph

WIDTH, HEIGHT, MARGIN = 320, 440, 24  # of the skeleton's drawing, SVG units
SILENT, FIRED, RADIUS = 3.2, 4.6, 13.0  # radius of a joint without spikes, smallest and largest radius with spikes
MOST_METRES = 1e6  # from the sensor; larger values are not joints
MOST_LABELS = 16  # frame numbers under a raster


@dataclass(frozen=True)
class Joint:
    """A circle of the skeleton's drawing."""

    name: str
    x: float
    y: float
    radius: float
    silent: bool


@dataclass(frozen=True, eq=False)
class Clip:
    """The sample clip. Frames count from 0 here and from 1 on the page."""

    graph: SkeletonGraph
    points: np.ndarray  # (T, V, 2) SVG units
    rasters: tuple[Raster, ...]

    @property
    def frames(self) -> int:
        """Frames of the clip as the network sees it."""
        return len(self.points)

    @property
    def bones(self) -> list[tuple[int, int]]:
        """Pairs of connected joints; the root has no bone of its own."""
        return [(child, parent) for child, parent in self.graph.bones if child != parent]

    @property
    def first(self) -> list[Joint]:
        """The first frame with the spikes of the first population, drawn before a script runs."""
        raster = self.rasters[0]
        radii = radii_of(raster)
        return [
            Joint(name, float(x), float(y), radii[fired], fired == 0)
            for name, (x, y), fired in zip(self.graph.joints, self.points[0], raster.fired[0].tolist(), strict=True)
        ]

    @property
    def script_data(self) -> dict[str, Any]:
        """Everything that the page's script needs to step through frames."""
        return {
            "frames": self.frames,
            "points": self.points.tolist(),
            "bones": self.bones,
            "populations": [
                {
                    "frames": raster.frames,
                    "fired": raster.fired.tolist(),
                    "radii": radii_of(raster),
                    "captions": self.captions(raster),
                }
                for raster in self.rasters
            ],
        }

    def captions(self, raster: Raster) -> list[str]:
        """Return a sentence for each frame of a population."""
        texts = []
        for fired, spikes in zip(raster.fired, raster.spikes, strict=True):
            text = f"{counted(int(spikes), 'spike')} in {raster.name}"
            if spikes:
                busiest = int(fired.argmax())
                text += f"; most neurons fired at: {self.graph.joints[busiest]} ({fired[busiest]} of {raster.neurons})"
            texts.append(text)
        return texts

    @staticmethod
    def frame_labels(raster: Raster) -> list[str]:
        """Return the numbers under a raster's frames, at most MOST_LABELS of them not empty."""
        every = -(-raster.frames // MOST_LABELS)
        return [str(frame + 1) if frame % every == 0 else "" for frame in range(raster.frames)]


def radii_of(raster: Raster) -> list[float]:
    """Return a joint's radius by the number of neurons that fired there; RADIUS belongs to the clip's maximum."""
    shares = [math.sqrt(number / raster.most) for number in range(1, raster.most + 1)]
    return [SILENT, *(round(FIRED + (RADIUS - FIRED) * share, 1) for share in shares)]


def project(joints: np.ndarray) -> np.ndarray:
    """Project joints (T, V, 3) to (T, V, 2) SVG units as the sensor sees them, with one scale for the whole clip."""
    flat = joints[..., :2].astype(np.float64) * (1.0, -1.0)
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    return np.round((flat - (low + high) / 2) * scale + np.array([WIDTH / 2, HEIGHT / 2]), 1)


def clip_of(folder: Path, manifest: Mapping[str, Any]) -> Clip | str:
    """Return the sample clip of a run's folder, or a sentence that says why there is none.

    Args:
        folder: The run's folder.
        manifest: Its manifest, which names the skeleton graph; empty if there is none.

    Raises:
        BadInputError: spikes.npz is damaged.
    """
    path = folder / SPIKES_FILE
    if not path.is_file():
        return f"There is no clip to show: the folder has no {SPIKES_FILE}."
    try:
        return _clip_in(path, manifest)
    except Exception as error:  # damage, or a wrong type in the manifest, can raise almost any error
        reason = printable(first_line(error)).removeprefix(printable(f"{path}: "))
        raise BadInputError(
            f"{path}: not readable as the spikes of a run ({reason}); run the benchmark again"
        ) from error


def _clip_in(path: Path, manifest: Mapping[str, Any]) -> Clip | str:
    joints = sample_joints(path)
    if joints is None:
        return f"There is no clip to show: {SPIKES_FILE} holds no joints of a sample clip."
    name = manifest.get("data", {}).get("graph")
    if name not in GRAPHS:
        return f"There is no clip to show: the manifest names no known skeleton graph ({name})."
    skeleton = GRAPHS[name]
    if joints.ndim != 3 or joints.shape[1:] != (skeleton.size, 3) or not (np.abs(joints) <= MOST_METRES).all():
        return f"There is no clip to show: the sample's joints, {joints.shape}, do not fit the graph {name}."
    names = populations(path, len(joints), skeleton.size)
    if not names:
        return f"There is no clip to show: no population of this network has frames and the {skeleton.size} joints."
    return Clip(skeleton, project(joints), tuple(raster_of(path, name) for name in names))
