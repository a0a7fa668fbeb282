"""Lava is the default where it is installed; elsewhere the emulator, unless Lava was asked for."""

import pytest

from mksgn.common.errors import MksgnWarning
from mksgn.deploy import backends
from mksgn.deploy.backends import backend_or_default
from mksgn.deploy.errors import LavaMissingError


def without_lava(name):
    assert name == "lava.magma"
    raise ModuleNotFoundError("No module named 'lava'")


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", without_lava)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: object())


def test_with_lava_it_is_the_default(installed):
    assert [backend_or_default(requested) for requested in (None, "lava", "emulator")] == ["lava", "lava", "emulator"]


def test_without_lava_the_emulator_runs_and_a_line_says_so(missing):
    with pytest.warns(MksgnWarning, match=r"^Lava is not installed \(make setup, or pip install 'mksgn\[lava\]'.*emul"):
        assert backend_or_default(None) == "emulator"


def test_without_lava_an_explicit_choice_is_kept_or_refused(missing, recwarn):
    assert backend_or_default("emulator") == "emulator"
    with pytest.raises(LavaMissingError, match=r"pip install 'mksgn\[lava\]'.*, or use --backend emulator$"):
        backend_or_default("lava")
    assert not recwarn.list
