"""One class per reason for which a network cannot be exported; each names the place, the reason and the remedy."""

from mksgn.train.errors import BadInputError, MksgnError


class ExportError(BadInputError):
    """Base of this stage's errors; exit code 2."""


class UnsupportedNodeError(ExportError):
    """A module or node that has no encoding here."""


class NonFiniteWeightsError(ExportError):
    """A weight, bias or threshold that is NaN or infinite."""


class RangeError(ExportError):
    """A number that does not fit Loihi's, or float32's, width."""


class ParityError(MksgnError):
    """Two executions of the same network disagree."""

    exit_code = 3
