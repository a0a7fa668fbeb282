"""Small students that are alive without training: batch norm and attention gains settle on a few
synthetic batches."""

import copy
from functools import cache
from typing import Any

import numpy as np
import torch

from mksgn.train.checkpoint import TrainedModel
from mksgn.train.datasets import open_source
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import body_inputs


def tiny(*, seed: int = 0, **changes: Any) -> tuple[TrainedModel, np.ndarray]:
    """Return a student on the synthetic clips, and bodies (L, 12, T, V) that its batch norms have not seen.

    Each combination of arguments is built once per process; every call gets a copy of its own.
    """
    hashable = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    trained, inputs, random_state = _build(seed, **hashable)
    torch.set_rng_state(random_state)
    return copy.deepcopy(trained), inputs.copy()


@cache
def _build(seed: int, **changes: Any) -> tuple[TrainedModel, np.ndarray, torch.Tensor]:
    torch.manual_seed(seed)
    clips = open_source("synthetic", part="train", limit=24, seed=seed)
    values = {"frames": 8, "stream_channels": 4, "widths": (8, 16), "heads": 2, **changes}
    student = Student(StudentConfig(clips.graph, clips.classes, **values))
    normaliser = StreamNormaliser.fit(clips.clips, student.config.frames, student.config.streams)
    batch, _ = body_inputs(clips.clips, normaliser)
    with torch.no_grad():
        for layer in student.modules():  # gains and offsets that are not 1 and 0, as after training
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.8, 1.6)
                layer.bias.uniform_(-0.1, 0.4)
                layer.momentum = 0.5
        for _ in range(6):
            student.train()(torch.from_numpy(batch))
        if student.smf.use_mutual_information:
            student.smf.b.uniform_(-0.3, 0.3)
    held_out = open_source("synthetic", part="test", limit=6, seed=seed)
    inputs, _ = body_inputs(held_out.clips, normaliser)
    trained = TrainedModel(student.eval(), normaliser, {"preset": "test", "split": "synthetic"})
    return trained, inputs, torch.get_rng_state()


def calibration(model: TrainedModel, clips: int = 8) -> np.ndarray:
    return body_inputs(open_source("synthetic", part="train", limit=clips).clips, model.normaliser)[0]
