"""The samples that a command's --calibration names."""

from pathlib import Path

import nir
import numpy as np

from mksgn.export.errors import ExportError
from mksgn.export.graph import files
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.metadata import input_normaliser
from mksgn.train.datasets import open_source
from mksgn.train.datasets.arrays import is_array_source, open_arrays
from mksgn.train.transforms import body_inputs

CLIPS = 24  # from a data set of skeletons
SAMPLES, BYTES = 512, 1 << 28  # from arrays: as many as fit in BYTES, but at least SAMPLES, spread over all of them


def calibration_arrays(
    graph: nir.NIRGraph | Path, source: str, split: str | None = None
) -> np.ndarray | dict[str, np.ndarray]:
    """Read the training part of a SOURCE as a graph's inputs.

    Args:
        graph: The graph, or its file, that is to be quantised.
        source: Arrays, `npz:FILE` or `npy:X`, or clips of skeletons for a file that says how to read them.
        split: Split of the clips.

    Raises:
        BadInputError: The source cannot be read, or does not fit.
    """
    if isinstance(graph, Path):
        graph = files.read(graph)
    if is_array_source(source):
        samples = open_arrays(source, part="train").by_input(list(flatten(graph).inputs))
        of_one = max(1, sum(x[:1].nbytes for x in samples.arrays.values()))
        samples = samples.limited(max(SAMPLES, BYTES // of_one))
        return dict(samples.take(range(len(samples))).arrays)
    normaliser = input_normaliser(graph)
    if normaliser is None:
        raise ExportError(
            f"--calibration {source}: the file carries no normalisation of skeleton clips; "
            "give arrays, npz:FILE or npy:FILE"
        )
    clips = open_source(source, split=split, part="train", limit=CLIPS)
    return body_inputs(clips.clips, normaliser)[0]
