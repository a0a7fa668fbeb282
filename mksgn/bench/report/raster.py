"""Spike rasters of one clip: an image per population, and how many neurons fired at each joint and frame.

Rows are neurons, grouped by joint. Columns are frames and, within a frame, time steps: the network
sees all frames at each of its S steps. A population has the shape (channels, frames, joints).
Attention's m has (heads, frames, query, key): its joint is the query and its channel is (head, key).
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mksgn.common import npz
from mksgn.deploy.run_folder import REMEDY, read_train, shapes

ROWS_PER_JOINT = 20  # of the image, about what a screen resolves; more neurons share rows
LEVELS = 15  # shades besides transparent in a 4-bit palette
FAINTEST = 0.3  # opacity of the smallest share that fired, still visible in print


@dataclass(frozen=True, eq=False)
class Raster:
    """Spikes of one population in the first body of the first clip."""

    name: str
    frames: int
    steps: int
    neurons: int  # per joint and frame
    group: int  # neurons per row of the image
    image: str  # data URI of a PNG, black on transparent
    fired: np.ndarray  # (frames, joints) int, neurons that fired at least once
    spikes: np.ndarray  # (frames,) int

    @property
    def most(self) -> int:
        """Largest number of neurons that fired at one joint and frame."""
        return int(self.fired.max(initial=0))


def populations(path: Path, frames: int, joints: int) -> list[str]:
    """Return the populations in spikes.npz with this number of joints and at most this number of frames."""
    return [
        name
        for name, (bodies, _, *shape) in shapes(path).items()
        if bodies and len(shape) in (3, 4) and 0 < shape[1] <= frames and all(size == joints for size in shape[2:])
    ]


def raster_of(path: Path, name: str) -> Raster:
    """Return the raster of a population's first stored spike train."""
    train = read_train(path, name)[0]  # (S, C, T, V), of m (S, H, T, V, V)
    if train.ndim == 5:
        by_key = train.transpose(0, 1, 4, 2, 3)
        train = by_key.reshape(by_key.shape[0], -1, *by_key.shape[3:])
    steps, neurons, frames, joints = train.shape
    by_row = train.transpose(3, 1, 2, 0).reshape(joints, neurons, frames * steps)
    group = -(-neurons // ROWS_PER_JOINT)
    return Raster(
        name=name,
        frames=frames,
        steps=steps,
        neurons=neurons,
        group=group,
        image=_png(_shares(by_row, group)),
        fired=train.any(axis=0).sum(axis=0),
        spikes=train.sum(axis=(0, 1, 3)),
    )


def sample_joints(path: Path) -> np.ndarray | None:
    """Return the first body's joints (T, V, 3) in the data's coordinates; None if the file has none."""
    return npz.read(path, REMEDY, wanted="sample/joints".__eq__).get("sample/joints")


def _shares(spikes: np.ndarray, group: int) -> np.ndarray:
    """Return the share of each row's neurons that fired.

    Args:
        spikes: (joints, neurons, columns) bool.
        group: Neurons per row.

    Returns:
        (joints · rows, columns) float.
    """
    neurons, columns = spikes.shape[1:]
    starts = np.arange(0, neurons, group)
    sizes = np.diff([*starts, neurons])
    return (np.add.reduceat(spikes, starts, axis=1, dtype=np.int64) / sizes[:, None]).reshape(-1, columns)


def _png(shares: np.ndarray) -> str:
    """Return a data URI of black in different opacities, which the page can invert. Every spike is visible."""
    image = Image.fromarray(np.ceil(shares * LEVELS).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0] * (LEVELS + 1))
    opacity = bytes([0, *(round(255 * (FAINTEST + (1 - FAINTEST) * n / LEVELS)) for n in range(1, LEVELS + 1))])
    file = io.BytesIO()
    image.save(file, format="PNG", bits=4, transparency=opacity, optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
