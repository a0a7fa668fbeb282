"""Clips as tensors for training, and their augmentation; vectorised over the batch."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mksgn.train.config import TrainConfig
from mksgn.train.datasets.clips import Clip
from mksgn.train.skeletons import graph, mirror_pairs
from mksgn.train.streams import StreamNormaliser, centred, check_joints, resize

STORED_FRAMES = 64  # every training clip is stored at this length; windows are cut from it


class TrainingClips:
    """All training clips in memory, resampled to one length: joints (N, M, 64, V, 3), present (N,
    M).

    Batches are made on `device`; random numbers are drawn on the CPU, the same for all devices.
    `classes` is the number of classes of mixed labels; by default, the largest label plus one.
    """

    def __init__(self, clips: Sequence[Clip], device: str = "cpu", classes: int | None = None):
        bodies, labels, self.digests = [], [], set()
        for clip in clips:  # read once: the clips may be on disk
            bodies.append(resize(check_joints(clip), STORED_FRAMES))
            labels.append(clip.label)
            self.digests.add(digest(clip))
        joints, self.present = stacked(bodies)
        self.joints = joints.to(device)
        self.labels = torch.tensor(labels)
        self.classes = classes or 1 + max(labels)

    @property
    def fingerprint(self) -> str:
        """Digest of the set of clips, independent of their order."""
        return hashlib.blake2b(b"".join(sorted(self.digests)), digest_size=16).hexdigest()

    def copies(self, clips: Sequence[Clip]) -> np.ndarray:
        """Tell which clips, (clips,) bool, are bitwise copies of training clips."""
        return np.array([digest(clip) in self.digests for clip in clips], dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, index: Tensor, normalisers: Sequence[StreamNormaliser], config: TrainConfig, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Make augmented windows of the clips at `index`.

        Several normalisers (a student's and its teacher's) see the same window of a clip, rotated
        and scaled alike.

        Returns:
            Bodies (L, 3 · streams, T, V) for each normaliser, the clip of each body (L,), and labels (B,), or
            with `mix` the share of each class (B, classes).
        """
        device, joints, present = self.joints.device, self.joints[index.to(self.joints.device)], self.present[index]
        clip_of, body = present.nonzero(as_tuple=True)
        length, start = sample_windows(len(joints), joints.shape[2], config.crop, generator)
        rotations = sample_rotations(len(joints), config, generator).to(device)
        mirrored = torch.rand(len(joints), generator=generator) < config.mirror if config.mirror else None
        mixture = sample_mixture(len(joints), config.mix, generator) if config.mix else None
        inputs = []
        for normaliser in normalisers:
            position = start[:, None] + length[:, None] * sample_positions(
                len(joints), normaliser.frames, config, generator
            )
            cut = window(joints, position.to(device))
            if mirrored is not None:
                cut = mirror(cut, mirrored.to(device), normaliser.graph)
            cut = rotate(cut, rotations)
            if mixture is not None:
                cut = mix(centred(cut, graph(normaliser.graph).centre), *mixture)
            inputs.append(normaliser(cut)[clip_of, body])
        labels = self.labels[index]
        if mixture is not None:
            labels = mix(F.one_hot(labels, self.classes).float(), *mixture)
        return inputs, clip_of.to(device), labels.to(device)


def sample_windows(clips: int, frames: int, least: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw length and start of windows, both (clips,) in stored frames; they cover at least the
    share `least` of a clip."""
    length = (least + (1 - least) * torch.rand(clips, generator=generator)) * (frames - 1)
    return length, torch.rand(clips, generator=generator) * (frames - 1 - length)


def sample_positions(clips: int, frames: int, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Place frames in windows, (clips or 1, frames), 0 at the window's first frame and 1 at its last."""
    if config.frame_sampling == "even":
        return torch.linspace(0, 1, frames)[None]
    return torch.rand(clips, frames, generator=generator).sort(dim=1).values


def window(joints: Tensor, position: Tensor) -> Tensor:
    """Resample clips (B, M, 64, V, 3) at positions (B, frames) in stored frames: (B, M, frames, V, 3)."""
    b, t = joints.shape[0], joints.shape[2]
    low = position.floor().clamp_(0, t - 2).long()
    weight = (position - low)[:, None, :, None, None]
    row = torch.arange(b, device=joints.device)[:, None]
    x = joints.transpose(1, 2)  # (B, 64, M, V, 3)
    left, right = x[row, low].transpose(1, 2), x[row, low + 1].transpose(1, 2)
    return left * (1 - weight) + right * weight


def sample_rotations(b: int, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Draw matrices (b, 3, 3): a rotation about the vertical axis, then one about x, times a scale."""
    tilt = config.rotate_degrees / 3 if config.tilt_degrees is None else config.tilt_degrees
    angle = (torch.rand(b, 2, generator=generator) * 2 - 1) * torch.tensor([config.rotate_degrees, tilt]).deg2rad()
    scale = config.scale[0] + (config.scale[1] - config.scale[0]) * torch.rand(b, generator=generator)
    (cy, cx), (sy, sx) = angle.cos().unbind(1), angle.sin().unbind(1)
    zero, one = torch.zeros(b), torch.ones(b)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).view(b, 3, 3)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], 1).view(b, 3, 3)
    return about_x @ about_y * scale.view(-1, 1, 1)


def rotate(joints: Tensor, rotations: Tensor) -> Tensor:
    """Rotate and scale joints (B, M, T, V, 3), each clip by its matrix (B, 3, 3)."""
    return torch.einsum("bij,bmtvj->bmtvi", rotations, joints)


def mirror(joints: Tensor, chosen: Tensor, graph_name: str) -> Tensor:
    """Mirror the chosen clips (B,) of joints (B, M, T, V, 3): swap each joint with its partner, and negate x."""
    reflected = joints[:, :, :, mirror_pairs(graph(graph_name))] * torch.tensor([-1.0, 1.0, 1.0], device=joints.device)
    return torch.where(chosen.view(-1, 1, 1, 1, 1), reflected, joints)


def sample_mixture(clips: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw each clip's partner in the batch, and the clip's own share in their mixture, both (clips,). The own share
    is between a half and 1, and 1 for clips that are not among the `share` to be mixed."""
    partner = torch.randperm(clips, generator=generator)
    chosen = torch.rand(clips, generator=generator) < share
    return partner, torch.where(chosen, 0.5 + 0.5 * torch.rand(clips, generator=generator), 1.0)


def mix(x: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Mix each clip of x (B, ...) with its partner (B,); `own` (B,) is the clip's own share in the mixture."""
    return torch.lerp(x[partner.to(x.device)], x, own.to(x.device).view(-1, *[1] * (x.dim() - 1)))


def digest(clip: Clip) -> bytes:
    """Compute a digest of a clip's joints, equal for bitwise copies only."""
    joints = np.ascontiguousarray(clip.joints, dtype=np.float32)
    return hashlib.blake2b(joints.tobytes(), digest_size=16, person=str(joints.shape).encode()[:16]).digest()


def body_inputs(clips: Sequence[Clip], normaliser: StreamNormaliser) -> tuple[np.ndarray, np.ndarray]:
    """Compute the inputs (L, 3 · streams, T, V) of the bodies present in clips, and the clip of
    each body (L,)."""
    joints, present = stacked([resize(normaliser.check(clip), normaliser.frames) for clip in clips])
    return normaliser(joints)[present].numpy(), present.nonzero()[:, 0].numpy()


def stacked(bodies: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Stack clips' joints (M, T, V, 3) of different numbers of bodies: joints (N, M, T, V, 3), present (N, M)."""
    shape = (len(bodies), max(map(len, bodies)), *bodies[0].shape[1:])
    joints, present = torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.bool)
    for n, body in enumerate(bodies):
        joints[n, : len(body)], present[n, : len(body)] = torch.from_numpy(body), True
        bodies[n] = body[:0].copy()  # frees the joints: there may be 40,000 clips
    return joints, present
