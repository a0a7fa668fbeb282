"""The two rules of the layout: a stage imports only from earlier stages, and only mksgn/deploy/lava imports Lava."""

import re
import subprocess
import sys

from scripts.imports_picture import ROOT, files, imports, picture
from scripts.imports_picture import STAGES as CAPTIONS
from tests.support.paths import DOCS

STAGES, FILES = tuple(CAPTIONS), files()  # stages in the order in which they may import
# What is still absent when a module has been imported, after those above it.
LIGHT = {
    "mksgn.bench": ("lava", "torch", "numba"),
    "mksgn.train.student": ("numba",),
    "mksgn.export.onnx.file": ("onnx", "onnxruntime"),
    "mksgn.deploy.command": ("lava",),
    "mksgn.bench.run": (
        *("lava", "PIL", "matplotlib", "distributed"),
        *("mksgn.bench.report.page", "mksgn.bench.report.markdown"),
    ),
}


def test_files_are_found():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(STAGES)


def test_a_stage_imports_only_from_earlier_stages():
    # The command prints what a run costs, and takes latencies to balance by; no module of deploy knows the bench.
    # Quantisation-aware training runs the exporter's rounding; no module of train knows it otherwise.
    lazy = {
        (ROOT / "deploy" / "command.py", "mksgn.bench.pricing.energy_lines"),
        (ROOT / "deploy" / "command.py", "mksgn.bench.timing.expected_balance"),
        (ROOT / "train" / "loop.py", "mksgn.export.quantization.aware.quantization_aware"),
    }
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports(path)
        if name.startswith("mksgn.")
        and (path, name) not in lazy
        and name.split(".")[1] not in STAGES[: STAGES.index(path.relative_to(ROOT).parts[0]) + 1]
    ]
    assert not wrong


def test_only_its_own_folder_imports_lava():
    # These import it when a user chooses that backend, not when they are imported.
    lazy = {ROOT / "deploy" / "execute.py", ROOT / "deploy" / "benchmark" / "measure.py"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if not path.is_relative_to(ROOT / "deploy" / "lava")
        for name in imports(path)
        if name.split(".")[0] == "lava" or (name.startswith("mksgn.deploy.lava") and path not in lazy)
    ]
    assert not wrong


def test_only_a_script_of_its_own_imports_sana_fe():
    script = ROOT / "deploy" / "sana_fe" / "simulate.py"
    assert "sanafe" in imports(script)
    assert not [path for path in FILES if path != script and any(n.split(".")[0] == "sanafe" for n in imports(path))]
    assert not [name for name in imports(script) if name.startswith("mksgn")]


def test_importing_a_module_imports_no_more_than_it_needs():
    """One process imports one after the other. torch imports jinja2 by itself: the modules that need it are looked for."""
    code = (
        "import importlib, sys\n"
        f"for name, absent in {LIGHT!r}.items():\n"
        "    importlib.import_module(name)\n"
        "    print(name, sorted(sys.modules.keys() & set(absent)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{name} []" for name in LIGHT], done.stderr


def test_the_folder_that_lava_searches_holds_only_processes():
    names = {path.name for path in (ROOT / "deploy" / "lava" / "processes").iterdir() if path.name != "__pycache__"}
    assert names == {"__init__.py", "leaf.py", "tap.py"}


def test_the_picture_of_the_architecture_shows_these_imports():
    """But for the numbers, which `make docs` brings up to date: an added file is no other architecture."""
    drawn, shown = (re.sub(r">\d+( files)?<", "><", text) for text in (picture(), (DOCS / "imports.svg").read_text()))
    assert drawn == shown, "make pages draws it"
