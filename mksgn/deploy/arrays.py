"""Inputs of any graph as NumPy files: .npy for a single input, .npz with an array per input name."""

from pathlib import Path

import numpy as np

from mksgn.common import npz
from mksgn.common.errors import BadInputError
from mksgn.common.quoting import printable
from mksgn.deploy.errors import DeployError

REMEDY = "write it with numpy.save or numpy.savez"


def load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read an array, or arrays by name.

    Raises:
        DeployError: the file is missing, holds no arrays of samples, or holds Python objects.
    """
    try:
        content = npz.read_npy(path, REMEDY) if npz.is_npy(path) else npz.read(path, REMEDY)
    except BadInputError as error:
        raise DeployError(str(error)) from error
    arrays = content if isinstance(content, dict) else {path.name: content}
    for name, x in arrays.items():
        if x.ndim < 2:
            raise DeployError(
                f"{path}: {printable(name)} has shape {x.shape}; "
                "expected (samples, steps, *input shape), or (samples, *input shape)"
            )
    return content


def is_array_file(source: str) -> bool:
    return source.endswith((".npy", ".npz"))
