"""Inputs of any graph as NumPy files: .npy for one input, .npz by input's name."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from mksgn.common.contents import check_content
from mksgn.common.errors import first_line
from mksgn.deploy.errors import DeployError


def load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read an array, or arrays by name.

    Raises:
        DeployError: the file is missing, holds no arrays of samples, or holds Python objects.
    """
    if path.is_file():
        check_content(path)
    try:
        content = np.load(path, allow_pickle=False)
        arrays = {path.name: content} if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DeployError(
            f"{path}: cannot be read as .npy or .npz ({first_line(error)}); write it with numpy.save or numpy.savez"
        ) from error
    for name, x in arrays.items():
        if x.ndim < 2:
            raise DeployError(
                f"{path}: {name} has shape {x.shape}; "
                "expected (samples, steps, *input shape), or (samples, *input shape)"
            )
    return content if isinstance(content, np.ndarray) else arrays


def is_array_file(source: str) -> bool:
    return source.endswith((".npy", ".npz"))
