"""mksgn/deploy/program/text: the program after each pass as golden files, which a reviewer can
read.

A change that is meant: `MKSGN_UPDATE_GOLDEN=1 python -m pytest tests/deploy/program/test_text.py`
writes tests/data/programs again; look at the difference before you commit it.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from mksgn.deploy.choices import PASS_NAMES
from mksgn.deploy.compiler import compile_graph
from mksgn.deploy.program.text import text
from tests.support.graphs import quantised_student_like
from tests.support.programs import recurrent_loop, resets, residual_chain, simple

FOLDER = Path(__file__).parents[2] / "data" / "programs"
NETWORKS = {
    "residual_chain": residual_chain,
    "recurrent_loop": recurrent_loop,
    "resets": resets,
    "attention": lambda: quantised_student_like(np.random.default_rng(0))[1],
}


def after_each_pass(graph) -> str:
    texts: dict[str, str] = {}
    compile_graph(graph, after=lambda name, program: texts.update({name: text(program)}))
    assert tuple(texts) == PASS_NAMES
    parts, before = [], None
    for name, now in texts.items():
        parts.append(f"after {name}:" + (" no change\n" if now == before else f"\n{now}"))
        before = now
    return "\n".join(parts)


@pytest.mark.parametrize("name", NETWORKS)
def test_programs_after_each_pass_are_the_golden_ones(name):
    actual, path = after_each_pass(NETWORKS[name]()), FOLDER / f"{name}.txt"
    if os.environ.get("MKSGN_UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(actual, encoding="utf-8")
    assert actual.splitlines() == path.read_text(encoding="utf-8").splitlines(), "see the head of this file"


def test_the_same_program_gives_the_same_text():
    one, other = (compile_graph(simple(steps=3), precision="float") for _ in range(2))
    assert text(one) == text(other)
    assert text(one).startswith(
        "program: float, dt 0.0001 s, 3 steps, latency 1\ninput x: 2, spikes, on chip, depth 0\n"
    )
