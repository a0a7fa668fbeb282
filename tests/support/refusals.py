"""The line that bad input is refused with."""

from collections.abc import Callable

import pytest

from mksgn.common.errors import BadInputError


def refusal(call: Callable[[], object]) -> str:
    """Return the message, which must be one line, of the BadInputError that `call` raises."""
    with pytest.raises(BadInputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
