"""The programs and notebooks of examples/: they run, and say what they are meant to say."""

import importlib.util
import json
import os
import re

import pytest

from tests.support import example_programs, pages
from tests.support.example_programs import python
from tests.support.paths import EXAMPLES, ROOT

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))
OWN_CHIP = "examples/own_chip/place.py"
NOTEBOOK_BYTES = 300_000
MACHINE = re.compile(r"/(home|root|tmp|Users|usr|opt|work)/|\\\\Users|site-packages")

# Trains the network of own_network.py, and compares its output spike by spike with that of the exported graph.
DECISIONS = """
import runpy, sys
import numpy as np
from mksgn.deploy import compile_graph, run

own = runpy.run_path(sys.argv[1])
images, labels = own["digits"](own["TRAIN"] + own["TEST"], 0)
net, steps = own["network"](), own["STEPS"]
own["train"](net, images[: own["TRAIN"]], labels[: own["TRAIN"]])
images = images[own["TRAIN"] :]
theirs = own["output"](net, images).detach().bool().numpy()
program = compile_graph(own["graph_of"](net), precision="float", analog=("input",), steps=steps)
ours = run(program, np.repeat(images[:, None].numpy(), steps, 1)).outputs["output"].astype(bool)
print("decisions that differ:", int((ours != theirs).sum()), "of", theirs.size, theirs.any())
"""


def test_the_page_of_examples_lists_them_all():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[([\w/.]+)\]", page, re.MULTILINE))
    assert {path.relative_to(EXAMPLES).as_posix() for path in [*PROGRAMS, *NOTEBOOKS]} <= listed


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_stores_its_outputs_and_nothing_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert path.stat().st_size < NOTEBOOK_BYTES
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]["language_info"]) == {"name"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all(cell["outputs"] and not cell["metadata"] for cell in code)
    assert not MACHINE.search(text)


def texts(notebook: dict) -> list[str]:
    """What the cells of a notebook printed."""
    outputs = (each for cell in notebook["cells"] if cell["cell_type"] == "code" for each in cell["outputs"])
    return ["".join(each["text"]) for each in outputs if each["output_type"] == "stream"]


def kinds(notebook: dict) -> list[list[str]]:
    """What kinds of output each cell has."""
    cells = (cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    return [sorted({each["output_type"] for each in outputs}) for outputs in cells]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_prints_what_it_stores(path, tmp_path, monkeypatch):
    """Figures of a network that the notebook trains differ between processors; all others are exact."""
    pytest.importorskip("nbclient", reason="notebooks need the extra mksgn[dev], on Python 3.11 or later")
    from scripts.notebooks import executed

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stored, now = json.loads(path.read_text(encoding="utf-8")), executed(path, tmp_path)
    assert kinds(now) == kinds(stored)
    if path.name == "mksgn_clips.ipynb":
        assert texts(now) == [text.replace("\r\n", "\n") for text in texts(stored)]
    else:
        accuracy = re.search(r"^8 bits +([0-9.]+)%", "".join(texts(now)), re.MULTILINE)
        assert accuracy is not None
        assert float(accuracy[1]) > 90


@pytest.mark.slow
def test_own_network_decides_as_its_framework_does(tmp_path):
    """With snnTorch, where it is installed (make test-interop), and else with the neuron in plain torch."""
    assert bool(importlib.util.find_spec("snntorch")) or "MKSGN_INTEROP" not in os.environ
    assert python(tmp_path, "-c", DECISIONS, EXAMPLES / "own_network.py") == "decisions that differ: 0 of 48000 True\n"


def test_every_program_is_run_and_checked_by_the_readme_or_here():
    programs = {path.relative_to(ROOT).as_posix() for path in PROGRAMS}
    in_readme = [step.text for step in pages.steps(ROOT / "README.md") if step.kind == "program"]
    assert sorted([*in_readme, OWN_CHIP]) == sorted(programs) == sorted(example_programs.CHECKS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_network_is_placed_priced_and_timed_on_the_own_chip(tmp_path):
    example_programs.run(OWN_CHIP, tmp_path)
