"""One class per reason why a network cannot be exported; messages give place and remedy."""

from mksgn.common.errors import BadInputError, MksgnError


class ExportError(BadInputError):
    """The base of this stage's errors; exit code 2."""


class UnsupportedModuleError(ExportError):
    """A module of the torch model has no encoding; the message names its path in the model."""


class SoftResetError(ExportError):
    """A neuron subtracts its threshold when it fires; NIR's LIF resets to v_reset."""


class TrainingModeError(ExportError):
    """A batch norm uses the statistics of its batch, so it has no constants to fold."""


class NonFiniteWeightsError(ExportError):
    """A weight, bias or threshold is NaN or infinite."""


class CannotFireError(ExportError):
    """A population stays below its threshold for every possible input."""


class NotPortableError(ExportError):
    """No stock primitive of NIR can express a node."""


class UnsupportedNodeError(ExportError):
    """A NIR node, or the way in which nodes are connected, is not supported."""


class UnsupportedLayerError(ExportError):
    """NIR cannot express part of a lava-dl layer, or netx silently drops it."""


class RangeError(ExportError):
    """A number does not fit the bit widths of Loihi or of float32."""


class MissingToolError(ExportError):
    """A required library is not installed."""


class ParityError(MksgnError):
    """Two executions of the same network disagree."""

    exit_code = 3
