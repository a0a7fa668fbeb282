"""The help of every command imports nothing heavy, which took seconds; it is counted in modules, not in seconds.

Each case is a process of its own: the help of a command and of its sub-commands, one after another.
"""

import importlib
import json
import os
import subprocess
import sys

import pytest
import typer

from mksgn.common.entry import STAGES
from mksgn.deploy.choices import CHIP_NAMES
from mksgn.deploy.placement.chips import CHIPS
from mksgn.train.choices import PRESET_NAMES, SOURCE_FORMS
from mksgn.train.config import PRESETS
from mksgn.train.datasets import SOURCES
from tests.support.paths import ROOT

# Top names of what a command works with: our dependencies, and what they bring, but typer, rich and yaml. Some versions of
# typer read a sub-command's name with pydantic.
HEAVY = {
    *("torch", "numpy", "numba", "llvmlite", "nir", "h5py", "networkx", "psutil", "scipy"),
    *("jinja2", "matplotlib", "PIL", "distributed", "dask", "onnx", "onnxruntime", "lava", "sympy", "pandas"),
}
RUN = """
import contextlib, importlib, io, json, sys
heavy, found = set({heavy!r}), []
for call in {calls!r}:
    sys.argv, printed, code = list(call), io.StringIO(), 0
    from mksgn.common import entry
    with contextlib.redirect_stdout(printed):
        try:
            getattr(entry, {start!r})()
        except SystemExit as end:
            code = end.code
    imported = sorted(heavy & {{name.partition(".")[0] for name in sys.modules}})
    found.append((code or 0, printed.getvalue(), imported))
print(json.dumps(found))
"""


def helps(start: str, calls: list[tuple[str, ...]]) -> list[tuple[int, str, list[str]]]:
    """Exit code, stdout and heavy modules imported so far, for each call in one process."""
    code = RUN.format(heavy=HEAVY, calls=calls, start=start)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def subcommands(stage: str) -> list[str]:
    command = typer.main.get_command(importlib.import_module(f"mksgn.{stage}.cli").app)
    return list(getattr(command, "commands", {}))


@pytest.mark.parametrize("stage", STAGES)
def test_help_imports_nothing_heavy(stage: str) -> None:
    names = subcommands(stage)
    assert (stage == "bench") == ("run" in names)
    calls = [(f"mksgn-{stage}",), *((f"mksgn-{stage}", *name, "--help") for name in ((), *((n,) for n in names)))]
    for call, (code, printed, imported) in zip(calls, helps(stage, calls), strict=True):
        assert (code, imported) == (0, []), call
        assert printed.startswith(f"Usage: {' '.join(call[:-1] if len(call) > 1 else call)} "), call


@pytest.mark.parametrize(
    ("stage", "words", "held"),
    [
        ("deploy", ("net.nir", "--data", "synthetic"), "manifest.json"),
        ("bench", ("run", "net.nir", "--data", "synthetic"), "manifest.json"),
        ("bench", ("sweep", "grid.yaml"), "sweep.json"),
    ],
)
def test_a_finished_folder_is_refused_before_anything_heavy_is_imported(stage, words, held, tmp_path) -> None:
    (tmp_path / held).write_text("{}")
    call = (f"mksgn-{stage}", *words, "-o", str(tmp_path))  # the folder comes before the model, which is not there
    code = RUN.format(heavy=HEAVY, calls=[call], start=stage)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert json.loads(done.stdout) == [[2, "", []]]
    assert f"{tmp_path}: holds a finished " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stage", "words", "remedy"),
    [
        ("export", ("absent.pt", "-o", "absent.nir"), "make one with mksgn-train --out DIR"),
        ("deploy", ("absent.nir", "--data", "synthetic"), "make one with mksgn-export model.pt --to nir"),
        ("bench", ("run", "absent.nir", "--data", "synthetic"), "make one with mksgn-export model.pt --to nir"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_anything_heavy_is_imported(stage, words, remedy, tmp_path) -> None:
    code = RUN.format(heavy=HEAVY, calls=[(f"mksgn-{stage}", *words)], start=stage)
    call = [sys.executable, "-c", code]
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False, **place)
    assert json.loads(done.stdout) == [[2, "", []]]
    assert f"absent.{'pt' if stage == 'export' else 'nir'}: no such file; {remedy}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_of_the_umbrella_imports_nothing_heavy() -> None:
    calls = [("mksgn",), ("mksgn", "--help"), *(("mksgn", stage, "--help") for stage in STAGES)]
    for call, (code, printed, imported) in zip(calls, helps("umbrella", calls), strict=True):
        assert (code, imported) == (0, []), call
        assert printed.startswith("Usage: mksgn"), call


@pytest.mark.parametrize("stage", ["export", "deploy", "bench"])
def test_a_package_imports_a_public_name_when_it_is_asked_for(stage: str) -> None:
    code = (
        f"import sys, json, mksgn.{stage} as package\n"
        f"names, light = dir(package), not {HEAVY!r} & set(sys.modules)\n"
        "kinds = [type(getattr(package, name)).__name__ for name in package.__all__]\n"
        f"from mksgn.{stage} import *\n"
        "print(json.dumps([light, set(package.__all__) <= set(names), set(package.__all__) <= set(globals()), kinds]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    light, listed, exported, kinds = json.loads(done.stdout)
    assert (light, listed, exported) == (True, True, True)
    assert set(kinds) <= {"function", "type", "ModelMetaclass"}


@pytest.mark.parametrize("stage", ["export", "deploy", "bench"])
def test_a_package_has_no_other_names(stage: str) -> None:
    package = importlib.import_module(f"mksgn.{stage}")
    with pytest.raises(AttributeError, match=f"module 'mksgn.{stage}' has no attribute 'compile_grpah'"):
        package.compile_grpah  # noqa: B018
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name)


def test_the_names_that_help_shows_are_all_there_are() -> None:
    assert tuple(CHIPS) == CHIP_NAMES
    assert tuple(PRESETS) == PRESET_NAMES
    assert tuple(SOURCES) == tuple(SOURCE_FORMS)
