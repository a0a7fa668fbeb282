"""What every error of ours shows, whichever names of files and populations are in it."""

import pytest

from mksgn.common.errors import BadInputError
from mksgn.deploy.errors import ChipLimitError
from mksgn.deploy.lava.guard.errors import LavaRuntimeError


@pytest.mark.parametrize("kind", [BadInputError, LavaRuntimeError])
def test_a_name_ends_no_line(kind):
    assert str(kind("\x1b[2J\nmodel: 2 clips, expected 4")) == "\\x1b[2J\\nmodel: 2 clips, expected 4"


def test_a_list_of_faults_keeps_its_lines():
    assert str(ChipLimitError("two limits:\n\x1b[2Jneurons\naxons")) == "two limits:\n\\x1b[2Jneurons\naxons"
