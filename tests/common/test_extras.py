"""Optional dependencies: present, or absent with the pip command."""

import sys

import pytest

from mksgn.common.extras import MissingExtraError, require


def test_present_modules_are_accepted():
    require("a test", "report", "json", "pathlib")


def test_an_absent_module_is_named_with_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(
        MissingExtraError, match=r"a test needs absent, which cannot be imported .*mksgn\[report\]"
    ) as error:
        require("a test", "report", "json", "absent")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
