"""Accuracy of predictions, and that of the unquantised student in torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mksgn.bench.record import Accuracy
from mksgn.bench.shards import shards
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import ClipSet
from mksgn.train.evaluate import predict, top1
from mksgn.train.transforms import body_inputs

TORCH_CLIPS = 256  # read at a time: a data set may be larger than the memory


def accuracy_of(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: Sequence[str]
) -> Accuracy:
    """Count the confusions of true and predicted classes.

    Args:
        labels: Index of the true class by clip.
        predictions: Index of the predicted class by clip.
        classes: Names of the classes.
    """
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)), 1)
    correct, clips = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return Accuracy(
        top1=sum(correct) / len(labels),
        correct=sum(correct),
        per_class={name: correct[i] / clips[i] if clips[i] else None for i, name in enumerate(classes)},
        confusion=confusion.tolist(),
    )


def torch_accuracy(model: Path, clips: ClipSet) -> float | None:
    """Top-1 of the unquantised student in torch; None where the file's parent, model.pt, is not in the same folder."""
    parent = model.parent / "model.pt"
    expected = files.read(model).metadata.get("parent")
    if not parent.is_file() or expected is None or checkpoint.sha256(parent) != expected:
        return None
    trained = checkpoint.load(parent)
    predictions = []
    for which in shards(np.ones(len(clips), dtype=bool), TORCH_CLIPS):
        inputs, clip_of_body = body_inputs(clips.clips[which.start : which.stop], trained.normaliser)
        predictions.append(predict(trained.student, inputs, clip_of_body, len(which)))
    return top1(torch.cat(predictions), clips.labels)
