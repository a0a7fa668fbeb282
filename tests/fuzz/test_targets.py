"""The files that fuzzing begins with are valid: a reader that refused them would never be reached."""

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name, tmp_path):
    target = TARGETS[name]
    if name == "utd-mhad":
        pytest.importorskip("scipy", reason="scipy is not installed: pip install 'mksgn[utd-mhad]'")
    contents = target.contents()
    assert contents
    for content in contents:
        (tmp_path / target.file).write_bytes(content)
        target.read(tmp_path / target.file)
