"""The line that bad input is refused with."""

from collections.abc import Callable

import pytest

from mksgn.common.errors import BadInputError


def read_or_refused(call: Callable[[], object]) -> str | None:
    """Return the message, which must be one line, of a BadInputError; None where `call` returns. Nothing else may be
    raised."""
    message = None
    try:
        call()
    except BadInputError as error:
        message = str(error)
    assert message is None or "\n" not in message
    return message


def refusal(call: Callable[[], object]) -> str:
    """Return the message, which must be one line, of the BadInputError that `call` raises."""
    with pytest.raises(BadInputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
