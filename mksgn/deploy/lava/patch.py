"""Let Lava run on Python 3.11 to 3.13 and with NumPy 2. Import this before anything of Lava.

lava-nc 0.10.0, the last release, was made for Python 3.10 and NumPy 1. Three lines of it fail with
later ones. They are replaced in memory while their modules are imported; the installed files stay
as they are. On Python 3.10, where lava-nc itself demands NumPy 1, nothing is replaced.
"""

import importlib.abc
import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from mksgn.deploy.errors import DeployError

LAVA_VERSION = "0.10.0"
NEWEST_PYTHON = (3, 13)  # the newest one whose multiprocessing the guard was tested with

# By module: text that occurs exactly once in its source, and its replacement.
REPLACEMENTS = {
    # Since Python 3.11 a dataclass rejects a default that cannot be hashed, and three classes have a ByteEncoder as one.
    "lava.magma.compiler.var_model": {
        b"@dataclass\nclass ByteEncoder:": b"@dataclass(unsafe_hash=True)\nclass ByteEncoder:"
    },
    # Since NumPy 2.4 np.reshape has no argument `newshape`; its new name, `shape`, is unknown before 2.1.
    "lava.magma.core.process.ports.ports": {
        b"ft.partial(np.reshape, newshape=self.shape)": b"lambda data, shape=self.shape: np.reshape(data, shape)",
        b"ft.partial(np.reshape, newshape=self.old_shape)": b"lambda data, old=self.old_shape: np.reshape(data, old)",
    },
}


def patch_lava(python: tuple[int, int] = sys.version_info[:2]) -> None:
    """Have Lava's modules patched when they are imported; do nothing on Python 3.10, or where Lava is not installed.

    Args:
        python: major and minor version of the interpreter.

    Raises:
        DeployError: this version of Lava or of Python is unknown, or Lava was imported before.
    """
    if python <= (3, 10) or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    try:
        version = importlib.metadata.version("lava-nc")
    except importlib.metadata.PackageNotFoundError:
        if PathFinder.find_spec("lava") is None:
            return  # the import of Lava that follows says so
        version = "of an unknown version"
    if version != LAVA_VERSION:
        raise DeployError(
            f"lava: lava-nc {version} is not {LAVA_VERSION}, the only version that can be patched for Python "
            f"{_text(python)}; install lava-nc {LAVA_VERSION} (make setup), or use --backend emulator"
        )
    if python > NEWEST_PYTHON:
        raise DeployError(
            f"lava: Python {_text(python)} is newer than {_text(NEWEST_PYTHON)}, the newest one that Lava was tested with; "
            f"use python{_text(NEWEST_PYTHON)}, or --backend emulator"
        )
    for name in REPLACEMENTS:
        if name in sys.modules:
            raise DeployError(
                f"lava: {name} was imported before it could be patched for Python {_text(python)}; "
                "import mksgn.deploy.lava first"
            )
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of REPLACEMENTS where Python would, and gives them a loader that patches their source."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in REPLACEMENTS else None
        if spec is not None and spec.origin is not None:
            spec.loader = _PatchingLoader(fullname, spec.origin)
        return spec


class _PatchingLoader(SourceFileLoader):
    """Compiles a module from its patched source, and neither reads nor writes its cached bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        for released, patched in REPLACEMENTS[fullname].items():
            if source.count(released) != 1:
                raise DeployError(
                    f"lava: {self.path} differs from lava-nc {LAVA_VERSION}: {source.count(released)} times "
                    f"{released.decode()!r}, expected once; reinstall lava-nc (make setup), or use --backend emulator"
                )
            source = source.replace(released, patched)
        return self.source_to_code(source, self.path)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


patch_lava()
