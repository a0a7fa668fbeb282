"""Arrays by input name, as the reference execution, the calibration, the compiler and runs take them."""

from collections.abc import Iterable, Mapping

import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.errors import ExportError

Arrays = np.ndarray | Mapping[str, np.ndarray]


def arrays_by_input(
    arrays: Arrays, inputs: Iterable[str], what: str = "input", *, error: type[BadInputError] = ExportError
) -> dict[str, np.ndarray]:
    """Return one array of numbers per input.

    Args:
        arrays: an array for the only input, or a mapping from input names to arrays; lists and
            tensors are accepted too.
        inputs: names of the graph's inputs.
        what: what messages call the arrays, before a name.
        error: class of the error.

    Raises:
        error: names or an array do not fit.
    """
    names = sorted(inputs)
    if not isinstance(arrays, Mapping):
        if len(names) != 1:
            raise error(f"the graph has {len(names)} inputs ({', '.join(names)}); give a dict of arrays by their names")
        arrays = {names[0]: arrays}
    if sorted(arrays) != names:
        given = ", ".join(sorted(arrays)) or "none"
        raise error(f"{what} {given}: the graph's inputs are {', '.join(names) or 'none'}")
    numbers = {name: np.asarray(x) for name, x in arrays.items()}
    for name, x in numbers.items():
        if x.dtype.kind not in "biuf":
            raise error(f"{what} {name}: holds {x.dtype}, expected numbers")
    return numbers
