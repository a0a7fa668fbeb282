"""Clips as tensors for training, and their augmentation; vectorised over the batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mksgn.train.config import TrainConfig
from mksgn.train.datasets.clips import Clip
from mksgn.train.streams import StreamNormaliser, check_joints, resize

STORED_FRAMES = 64  # every training clip is stored at this length; windows are cut from it


class TrainingClips:
    """All training clips in memory at a fixed length: joints (N, M, 64, V, 3), present (N, M)."""

    def __init__(self, clips: list[Clip]):
        bodies = max(clip.joints.shape[0] for clip in clips)
        joints = np.zeros((len(clips), bodies, STORED_FRAMES, clips[0].joints.shape[2], 3), dtype=np.float32)
        present = np.zeros((len(clips), bodies), dtype=bool)
        for n, clip in enumerate(clips):
            body = resize(check_joints(clip), STORED_FRAMES)
            joints[n, : len(body)], present[n, : len(body)] = body, True
        self.joints, self.present = torch.from_numpy(joints), torch.from_numpy(present)
        self.labels = torch.tensor([clip.label for clip in clips])

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, index: Tensor, normaliser: StreamNormaliser, config: TrainConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented windows: lanes (L, 12, T, V), the clip of each lane (L,), labels (B,)."""
        joints = window(self.joints[index], normaliser.frames, config.crop, generator)
        joints = turn_and_scale(joints, config, generator)
        present = self.present[index]
        return normaliser(joints)[present], present.nonzero()[:, 0], self.labels[index]


def window(joints: Tensor, frames: int, least: float, generator: torch.Generator) -> Tensor:
    """A random window per clip, resampled to `frames`: (B, M, 64, V, 3) → (B, M, frames, V, 3)."""
    b, t = joints.shape[0], joints.shape[2]
    length = (least + (1 - least) * torch.rand(b, generator=generator)) * (t - 1)
    start = torch.rand(b, generator=generator) * (t - 1 - length)
    position = start[:, None] + length[:, None] * torch.linspace(0, 1, frames)
    low = position.floor().clamp_(0, t - 2).long()
    weight = (position - low)[:, None, :, None, None]
    row = torch.arange(b)[:, None]
    x = joints.transpose(1, 2)  # (B, 64, M, V, 3)
    left, right = x[row, low].transpose(1, 2), x[row, low + 1].transpose(1, 2)
    return left * (1 - weight) + right * weight


def turn_and_scale(joints: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Rotate each clip about the vertical axis and, by a third of the angle, about x; scale it."""
    b = len(joints)
    angle = (torch.rand(b, 2, generator=generator) * 2 - 1) * torch.tensor(
        [config.rotate_degrees, config.rotate_degrees / 3]
    ).deg2rad()
    scale = config.scale[0] + (config.scale[1] - config.scale[0]) * torch.rand(b, generator=generator)
    (cy, cx), (sy, sx) = angle.cos().unbind(1), angle.sin().unbind(1)
    zero, one = torch.zeros(b), torch.ones(b)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).view(b, 3, 3)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], 1).view(b, 3, 3)
    return torch.einsum("bij,bmtvj->bmtvi", about_x @ about_y * scale.view(-1, 1, 1), joints)


def lanes(clips: list[Clip], normaliser: StreamNormaliser) -> tuple[np.ndarray, np.ndarray]:
    """Clips as they are run: inputs (L, 12, T, V) and the clip of each lane (L,); absent bodies get no lane."""
    bodies = [normaliser.clip(clip) for clip in clips]
    return np.concatenate(bodies), np.repeat(np.arange(len(clips)), [len(b) for b in bodies])
