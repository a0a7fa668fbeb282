"""Files of earlier nir releases (tests/data, from tests/support/old_nir_files.py) are read and run, or refused."""

from pathlib import Path

import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, run
from mksgn.export.graph import files
from tests.support import euler_oracle
from tests.support.old_nir_files import ADDED, DT, NAMES, Writer
from tests.support.paths import DATA

EACH = [(release, name) for release in ADDED for name in NAMES]


def path_of(release: str, name: str) -> Path:
    return DATA / f"nir_{release}_{name}.nir"


def inputs_of(name: str) -> np.ndarray:
    return (np.random.default_rng(11).random((2, 6, *NAMES[name])) < 0.5).astype(np.float32)


def assert_same(actual: nir.NIRGraph, expected: nir.NIRGraph) -> None:
    assert set(actual.nodes) == set(expected.nodes)
    assert sorted(actual.edges) == sorted(expected.edges)
    for name, node in expected.nodes.items():
        other = actual.nodes[name]
        assert type(other) is type(node)
        if isinstance(node, nir.NIRGraph):
            assert_same(other, node)
            continue
        for field in set(node.__dataclass_fields__) - {"metadata", "input_type", "output_type", "input_shape"}:
            np.testing.assert_array_equal(getattr(other, field), getattr(node, field), err_msg=f"{name}.{field}")
        for kind in ("input_type", "output_type"):
            shapes = [list(getattr(n, kind).values()) for n in (other, node)]
            if shapes[1][0] is not None:  # a pool alone does not know what it gets
                np.testing.assert_array_equal(*shapes, err_msg=f"{name}.{kind}")


def test_every_file_has_a_test():
    names = {p.name for p in DATA.glob("nir_*.nir")}
    assert names == {path_of(*e).name for e in [*EACH, ("0.0.1", "numbered"), ("0.0.6", "numbered")]}


@pytest.mark.parametrize(("release", "name"), EACH)
def test_reads_nodes_and_arrays(release, name):
    """A release's file holds what the same script builds with today's nir; missing v_reset and w_in are 0 and 1."""
    assert_same(files.read(path_of(release, name)), getattr(Writer(ADDED[release]), name)())


@pytest.mark.parametrize("release", ["0.0.1", "0.0.6"])
def test_numbered_nodes_are_refused_in_a_line(release):
    """Before 0.1.0 nodes had numbers, and no nir since reads them."""
    with pytest.raises(BadInputError, match=r"numbered\.nir") as error:
        files.read(path_of(release, "numbered"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("release", "name"), EACH)
def test_oracle_sees_every_population_fire(release, name):
    """An agreement on silence would mean nothing."""
    spikes, outputs, margins = euler_oracle.execute(files.read(path_of(release, name)), {"input": inputs_of(name)}, DT)
    assert all(0.02 < train.mean() < 0.98 for train in spikes.values()), {n: s.mean() for n, s in spikes.items()}
    assert all(m.min() > 1e-6 for m in margins.values())
    assert outputs["output"].any()


@pytest.mark.parametrize(("release", "name"), EACH)
def test_compiles_and_runs(release, name):
    path = path_of(release, name)
    spikes, outputs, _ = euler_oracle.execute(files.read(path), {"input": inputs_of(name)}, DT)
    execution = run(compile_graph(path, precision="float", dt=DT), inputs_of(name))
    assert set(spikes) <= set(execution.spikes)
    for population, train in spikes.items():
        assert int((execution.spikes[population] != train).sum()) == 0, population
    np.testing.assert_allclose(execution.outputs["output"], outputs["output"], rtol=1e-5, atol=1e-5)
