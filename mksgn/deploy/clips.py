"""Raw clips as a program's inputs, through the normaliser that the NIR file carries, and predictions
of clips from samples.
"""

from dataclasses import dataclass

import nir
import numpy as np
import torch

from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program
from mksgn.export.graph.metadata import input_normaliser, json_of
from mksgn.train.datasets import ClipSet
from mksgn.train.student import body_mean
from mksgn.train.transforms import body_inputs


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """Inputs of clips, one sample per body."""

    inputs: np.ndarray  # (samples, steps, *shape), a view that repeats one value over the steps
    clip_of_body: np.ndarray  # index of the clip, per sample
    labels: np.ndarray  # per clip

    def predictions(self, execution: Execution) -> np.ndarray:
        """Return the class of each clip, from its output averaged over steps, then over the bodies present."""
        logits = body_mean(torch.from_numpy(execution.logits()), torch.from_numpy(self.clip_of_body), len(self.labels))
        return logits.argmax(1).numpy()


def clip_inputs(graph: nir.NIRGraph, program: Program, clips: ClipSet) -> ClipInputs:
    """Normalise clips into a program's inputs.

    Raises:
        BadInputError: the clips do not fit the file.
        DeployError: the file does not say how to read clips.
    """
    normaliser = input_normaliser(graph)
    if normaliser is None or program.steps is None:
        raise DeployError(
            "the file carries no normalisation of skeleton clips; run it through mksgn.deploy.run with arrays of "
            "your own"
        )
    classes = json_of(graph, "classes")
    if classes is not None and len(clips.classes) != len(classes):
        raise DeployError(
            f"{clips.source} has {len(clips.classes)} classes, the model {len(classes)}; give the data that it was "
            "trained for"
        )
    values, clip_of_body = body_inputs(clips.clips, normaliser)
    # the same current at every step: a view, so that nothing is stored or computed S times
    repeated = np.broadcast_to(values[:, None], (len(values), program.steps, *values.shape[1:]))
    return ClipInputs(repeated, clip_of_body, clips.labels)
