"""The patch that later Pythons need: what it replaces, and the versions that it refuses."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lava", reason="lava-nc is not installed: make setup")

from mksgn.deploy.errors import DeployError
from mksgn.deploy.lava import patch

# isort: split
from lava.magma.compiler import var_model
from lava.magma.core.process.ports import ports

LATER = (3, 12)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> list:
    """An interpreter in which nothing of Lava was imported or patched: the finders that Python asks."""
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, patch._Finder)])
    for name in patch.REPLACEMENTS:
        monkeypatch.delitem(sys.modules, name)
    return sys.meta_path


def is_patched(finders: list) -> bool:
    return any(isinstance(finder, patch._Finder) for finder in finders)


def test_lava_is_patched_where_python_needs_it():
    assert is_patched(sys.meta_path) == (sys.version_info >= (3, 11))
    # What makes Python 3.11 accept it as the default of a dataclass.
    assert (var_model.ByteEncoder.__hash__ is None) == (sys.version_info < (3, 11))
    assert var_model.CoreEncoder() == var_model.CoreEncoder()


def test_reshape_ports_reshape_both_ways():
    port = ports.ReshapePort(new_shape=(6,), old_shape=(2, 3))
    data = np.arange(6).reshape(2, 3)
    flat = port.get_transform_func_fwd()(data)
    assert np.array_equal(flat, np.arange(6))
    assert np.array_equal(port.get_transform_func_bwd()(flat), data)


@pytest.mark.parametrize("name", patch.REPLACEMENTS)
def test_the_installed_file_stays_as_it_was_released(name):
    source = Path(sys.modules[name].__file__ or "").read_bytes()
    assert all(source.count(released) == 1 for released in patch.REPLACEMENTS[name])


def test_python_3_10_needs_no_patch(unpatched):
    patch.patch_lava((3, 10))
    assert not is_patched(unpatched)


def test_a_second_call_changes_nothing(unpatched):
    patch.patch_lava(LATER)
    finders = list(unpatched)
    patch.patch_lava(LATER)
    assert is_patched(finders)
    assert unpatched == finders


def test_an_unknown_version_of_lava_is_refused(unpatched, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.0")
    with pytest.raises(DeployError, match=r"^lava: lava-nc 0\.11\.0 is not 0\.10\.0, .* Python 3\.12; install"):
        patch.patch_lava(LATER)
    patch.patch_lava((3, 10))
    assert not is_patched(unpatched)


def test_lava_without_metadata_is_refused(unpatched, monkeypatch):
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(DeployError, match="lava-nc of an unknown version is not"):
        patch.patch_lava(LATER)


def test_a_python_that_nobody_tested_is_refused(unpatched):
    with pytest.raises(DeployError, match=r"^lava: Python 3\.14 is newer than 3\.13, .* use python3\.13"):
        patch.patch_lava((3, 14))
    assert not is_patched(unpatched)


def test_lava_imported_before_is_refused(unpatched, monkeypatch):
    monkeypatch.setitem(sys.modules, "lava.magma.compiler.var_model", var_model)
    with pytest.raises(DeployError, match=r"var_model was imported before .*; import mksgn\.deploy\.lava first"):
        patch.patch_lava(LATER)


@pytest.mark.parametrize("times", [0, 2])
def test_a_changed_file_is_refused(tmp_path, times):
    name = "lava.magma.compiler.var_model"
    path = tmp_path / "var_model.py"
    path.write_bytes(b"@dataclass\nclass ByteEncoder: pass\n" * times)
    with pytest.raises(DeployError, match=rf"{path} differs from lava-nc 0\.10\.0: {times} times .* expected once"):
        patch._PatchingLoader(name, str(path)).get_code(name)


@pytest.mark.slow
def test_a_refusal_is_one_line_of_the_command(tmp_path):
    """`lava` is there and `lava-nc` is not: refused on a later Python, before anything of Lava is imported."""
    (tmp_path / "lava").mkdir()
    (tmp_path / "lava" / "__init__.py").write_text("raise AssertionError('imported')")
    code = (
        "import importlib.metadata, sys; importlib.metadata.version = lambda name: '9.9'\n"
        "from mksgn.deploy.errors import DeployError\n"
        "try: import mksgn.deploy.lava\n"
        "except DeployError as error: print(error)\n"
        "except AssertionError: print('imported')\n"
    )
    paths = [str(tmp_path), *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "lava: lava-nc 9.9 is not 0.10.0" if sys.version_info >= (3, 11) else "imported"
    assert result.stdout.startswith(expected)
    assert result.stdout.count("\n") == 1
