"""One clip beside the spikes that it caused: the skeleton frame by frame, and the rasters of all populations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mksgn.bench.numbers import counted
from mksgn.bench.report.raster import Raster, populations, raster, sample_joints
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import SPIKES_FILE
from mksgn.train.skeletons import GRAPHS, SkeletonGraph

WIDTH, HEIGHT, MARGIN = 320, 440, 24  # of the drawing of the skeleton, SVG units
SILENT, FIRED, RADIUS = 3.2, 4.6, 13.0  # radii: of a joint without spikes, the least and the most with some
MOST_LABELS = 16  # of frames under a raster


@dataclass(frozen=True)
class Joint:
    name: str
    x: float
    y: float
    radius: float
    silent: bool


@dataclass(frozen=True, eq=False)
class Clip:
    """What the page shows of the sample clip. Frames count from 0 here, from 1 on the page."""

    graph: SkeletonGraph
    points: np.ndarray  # (T, V, 2) SVG units
    rasters: tuple[Raster, ...]

    @property
    def frames(self) -> int:
        return len(self.points)

    @property
    def bones(self) -> list[tuple[int, int]]:
        """Pairs of joints, the root's own bone left out."""
        return [(child, parent) for child, parent in self.graph.bones if child != parent]

    @property
    def first(self) -> list[Joint]:
        """The first frame with the first population: what shows where no script runs."""
        shown = self.rasters[0]
        radii = radii_of(shown)
        return [
            Joint(name, float(x), float(y), radii[fired], fired == 0)
            for name, (x, y), fired in zip(self.graph.joints, self.points[0], shown.fired[0].tolist(), strict=True)
        ]

    @property
    def script_data(self) -> dict[str, Any]:
        """All that stepping needs."""
        return {
            "frames": self.frames,
            "points": self.points.tolist(),
            "bones": self.bones,
            "populations": [
                {
                    "frames": each.frames,
                    "fired": each.fired.tolist(),
                    "radii": radii_of(each),
                    "captions": self.captions(each),
                }
                for each in self.rasters
            ],
        }

    def captions(self, shown: Raster) -> list[str]:
        """A sentence for each frame of a population."""
        found = []
        for fired, spikes in zip(shown.fired, shown.spikes, strict=True):
            text = f"{counted(int(spikes), 'spike')} in {shown.name}"
            if spikes:
                busiest = int(fired.argmax())
                text += f"; most neurons fired at: {self.graph.joints[busiest]} ({fired[busiest]} of {shown.neurons})"
            found.append(text)
        return found

    @staticmethod
    def labelled(shown: Raster) -> list[str]:
        """Numbers under the frames of a raster, not all of them where there are many."""
        every = -(-shown.frames // MOST_LABELS)
        return [str(frame + 1) if frame % every == 0 else "" for frame in range(shown.frames)]


def radii_of(shown: Raster) -> list[float]:
    """By the number of neurons that fired: the circle's area grows with it, the largest has the clip's most."""
    grow = [math.sqrt(number / max(1, shown.most)) for number in range(shown.most + 1)]
    return [SILENT, *(round(FIRED + (RADIUS - FIRED) * each, 1) for each in grow[1:])]


def project(joints: np.ndarray) -> np.ndarray:
    """(T, V, 3) → (T, V, 2) SVG units, seen from the sensor: x to the right, y up, one scale for the whole clip."""
    flat = joints[..., :2].astype(np.float64) * (1.0, -1.0)
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    return np.round((flat - (low + high) / 2) * scale + np.array([WIDTH / 2, HEIGHT / 2]), 1)


def clip_of(folder: Path, manifest: Mapping[str, Any]) -> Clip | str:
    """The sample clip of a run's folder, or in one sentence why there is none to show. Raises BadInputError for a broken file."""
    path = folder / SPIKES_FILE
    if not path.is_file():
        return f"There is no clip to show: the folder has no {SPIKES_FILE}."
    try:
        return _clip_in(path, manifest)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BadInputError(
            f"{path}: not readable as the spikes of a run ({error}); run the benchmark again"
        ) from error


def _clip_in(path: Path, manifest: Mapping[str, Any]) -> Clip | str:
    joints = sample_joints(path)
    if joints is None:
        return f"There is no clip to show: {SPIKES_FILE} holds no joints of a sample clip."
    name = manifest.get("data", {}).get("graph")
    if name not in GRAPHS:
        return f"There is no clip to show: the manifest names no skeleton graph that is known here ({name})."
    skeleton = GRAPHS[name]
    if joints.ndim != 3 or joints.shape[1:] != (skeleton.size, 3) or not np.isfinite(joints).all():
        return f"There is no clip to show: the sample's joints, {joints.shape}, do not fit the graph {name}."
    shown = populations(path, len(joints), skeleton.size)
    if not shown:
        return f"There is no clip to show: no population of this network has frames and the {skeleton.size} joints."
    return Clip(skeleton, project(joints), tuple(raster(path, each) for each in shown))
