"""Types of the config entries that student and teacher share."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mksgn.common.validation import Integer
from mksgn.train.skeletons import graph
from mksgn.train.streams import MOST_FRAMES, check_streams


def _known(name: str) -> str:
    graph(name)  # raises BadInputError
    return name


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError("Input should be odd")
    return length


def check_weights(count: int) -> None:
    """Raise ValueError for a network that would not fit, before it is built; `count` is the number of weights of
    its convolutions."""
    if count > MOST_WEIGHTS:
        raise ValueError(f"{count:,} weights, the limit is {MOST_WEIGHTS:,}; use fewer or smaller widths")


MOST_WEIGHTS = 1 << 28  # 1 GiB; 3 GiB with an optimiser's moments, which torch_file reads; `paper` has 3 million
MOST_DECISIONS = 1 << 30  # of one layer for one body, 4 GiB as float32; `paper` has 2 million
Width = Annotated[Integer, Field(ge=1, le=4096)]  # channels; the presets have up to 256
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]  # blocks; the presets have up to six
Steps = Annotated[Integer, Field(ge=1, le=1024)]  # the presets have 4; a rate's resolution is 1 / S
Frames = Annotated[Integer, Field(ge=2, le=MOST_FRAMES)]
Kernel = Annotated[Integer, Field(ge=1, le=255), AfterValidator(_odd)]  # frames; the presets have up to 9
ClassName = Annotated[str, Field(max_length=1000)]
GraphName = Annotated[str, AfterValidator(_known)]
ClassNames = Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=10_000)]  # NTU RGB+D has 120
Streams = Annotated[tuple[str, ...], AfterValidator(check_streams)]
