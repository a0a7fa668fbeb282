"""Accuracy of predictions, and that of the unquantised student in torch."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mksgn.bench.record import Accuracy
from mksgn.bench.samples import ClipSamples, SampleSet
from mksgn.bench.shards import shards
from mksgn.common.errors import BadInputError
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import ClipSet
from mksgn.train.evaluate import predict, top1
from mksgn.train.transforms import body_inputs

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
TORCH_CLIPS = 256  # read at a time: a data set may be larger than memory


def accuracy_of(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: Sequence[str]
) -> Accuracy:
    """Count the confusions of true and predicted classes.

    Args:
        labels: Index of the true class of each clip.
        predictions: Index of the predicted class of each clip.
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


def wilson(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a fraction, which stays within 0 and 1 and has a width even at 0 or n of n.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212; recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001),
    101-133. It assumes independent samples; clips of the same person are not, so the true interval is wider.

    Args:
        correct: Successes.
        total: Trials, at least 1.
        z: Two-sided quantile of the normal distribution; 95 % by default.
    """
    share, spread = correct / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # exact at both ends, where rounding would leave 1e-17
    return (0.0 if correct == 0 else centre - half, 1.0 if correct == total else centre + half)


def classes_of(samples: SampleSet, outputs: int) -> tuple[str, ...]:
    """Return the names of the classes: those of the data, or the indices of the output's values.

    Raises:
        BadInputError: The output has no value for a label.
    """
    if samples.classes is not None:
        return samples.classes
    if samples.labels is not None and (largest := int(samples.labels.max())) >= outputs:
        raise BadInputError(
            f"{samples.source}: label {largest}, and the decoded output has {outputs} values, of classes 0 to "
            f"{outputs - 1}; leave out y for a run without accuracy"
        )
    return tuple(map(str, range(outputs)))


def torch_accuracy(model: Path, data: SampleSet | ClipSet) -> float | None:
    """Return top-1 of the unquantised student in torch; None if the parent, model.pt, is not in the file's folder."""
    if not isinstance(data, ClipSamples | ClipSet):
        return None
    clips = data.clips if isinstance(data, ClipSamples) else data
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
