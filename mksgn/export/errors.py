"""One class per reason for which a network cannot be exported; each names the place, the reason and the remedy."""

from mksgn.common.errors import BadInputError, MksgnError


class ExportError(BadInputError):
    """Base of this stage's errors; exit code 2."""


class UnsupportedModuleError(ExportError):
    """A module of the torch model that has no encoding; named by its path in the model."""


class SoftResetError(ExportError):
    """A neuron that subtracts its threshold: NIR's LIF sets the membrane to v_reset."""


class TrainingModeError(ExportError):
    """A batch norm that would use its batch's statistics: it has no constants to fold."""


class NonFiniteWeightsError(ExportError):
    """A weight, bias or threshold that is NaN or infinite."""


class CannotFireError(ExportError):
    """A population that stays below its threshold whatever its inputs do."""


class NotPortableError(ExportError):
    """A node that no stock primitive of NIR can express."""


class UnsupportedNodeError(ExportError):
    """A NIR node, or a way of connecting nodes, that has no encoding here."""


class UnsupportedLayerError(ExportError):
    """A layer, neuron or setting of a lava-dl file that NIR cannot say, or that netx itself would drop in silence."""


class RangeError(ExportError):
    """A number that does not fit Loihi's, or float32's, width."""


class MissingToolError(ExportError):
    """A library that is needed for this, and is not installed."""


class ParityError(MksgnError):
    """Two executions of the same network disagree."""

    exit_code = 3
