"""Types of the config entries that student and teacher share."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mksgn.common.validation import Integer
from mksgn.train.skeletons import graph
from mksgn.train.streams import check_streams


def _known(name: str) -> str:
    graph(name)  # raises BadInputError
    return name


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError("Input should be odd")
    return length


Count = Annotated[Integer, Field(ge=1)]
Frames = Annotated[Integer, Field(ge=2)]
Kernel = Annotated[Count, AfterValidator(_odd)]
GraphName = Annotated[str, AfterValidator(_known)]
ClassNames = Annotated[tuple[str, ...], Field(min_length=2)]
Streams = Annotated[tuple[str, ...], AfterValidator(check_streams)]
