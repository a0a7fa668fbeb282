"""Recorded spikes side by side: another simulator's file and a run, decision by decision."""

import json

import nir
import numpy as np
import pytest

from mksgn.bench.compare.recordings import compare
from mksgn.common.errors import BadInputError
from tests.support.graphs import DT, chain, inp, lif, linear, out

X = (np.random.default_rng(0).random((3, 12, 6)) < 0.5).astype(np.float32)


def recorded(path, **spikes: np.ndarray):
    nodes = {name: nir.NIRNodeData({"spikes": nir.TimeGriddedData(x, DT)}) for name, x in spikes.items()}
    nir.write_data(str(path), nir.NIRGraphData(nodes))
    return path


@pytest.fixture
def deployed(run_command, tmp_path):
    """A run's folder as a user makes it, and its spikes by NumPy."""
    weight = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    graph = chain(("x", inp(6)), ("a", linear(weight)), ("p", lif(4, threshold=0.3)), ("y", out(4)))
    nir.write(tmp_path / "net.nir", graph)
    np.save(tmp_path / "x.npy", X)
    arguments = (
        "--precision",
        "float",
        "--backend",
        "emulator",
        "--inputs",
        tmp_path / "x.npy",
        "-o",
        tmp_path / "run",
    )
    run_command("deploy", tmp_path / "net.nir", *arguments)
    v, spikes = np.zeros((3, 4)), []
    for x in X.swapaxes(0, 1):
        v = v + 0.5 * (x @ weight.T - v)
        spikes.append(v > np.float32(0.3))
        v[v > np.float32(0.3)] = 0
    return tmp_path, np.stack(spikes, 1)


def test_a_run_beside_anothers_recording(deployed, run_command):
    folder, spikes = deployed
    theirs = recorded(folder / "theirs.h5", p=spikes, other=spikes)
    printed = run_command("bench", "compare", theirs, folder / "run", "--identical").out
    assert f"0 of {spikes.size} decisions differ, on 3 samples" in printed
    assert "only in" in printed
    spikes[1, 4, 2] ^= True
    spikes[0, 7, 0] ^= True
    recorded(folder / "theirs.h5", p=spikes)
    printed = run_command("bench", "compare", theirs, folder / "run", "--identical", "--json", code=5)
    result = json.loads(printed.out)
    assert (result["differ"], result["populations"][0]["first"]) == (2, [4, 1, 2])
    assert f"identical: 2 of {spikes.size} decisions differ" in printed.err


def test_a_run_as_nir_data_equals_itself(deployed, run_command):
    folder, spikes = deployed
    assert "1 populations, 3 samples" in run_command("bench", "nir-data", folder / "run", "-o", folder / "ours.h5").out
    markdown = folder / "a.md"
    run_command("bench", "compare", folder / "run", folder / "ours.h5", "--identical", "--markdown", markdown)
    assert f"| p | {spikes.size} | 0 | {spikes.sum()} | {spikes.sum()} |" in markdown.read_text()
    np.testing.assert_array_equal(nir.read_data(folder / "ours.h5").nodes["p"].observables["spikes"].data, spikes)


def test_events_take_the_time_step_of_the_run(deployed):
    folder, spikes = deployed
    events = nir.TimeGriddedData(spikes, DT).to_event(int(spikes.sum()))
    nir.write_data(str(folder / "events.h5"), nir.NIRGraphData({"p": nir.NIRNodeData({"spikes": events})}))
    assert compare(folder / "events.h5", folder / "run").differ == 0


def test_recordings_of_different_samples_share_the_first(tmp_path):
    a, b = (recorded(tmp_path / f"{n}.h5", p=np.ones((n, 4, 2), dtype=bool)) for n in (5, 2))
    assert (compare(a, b).samples, compare(a, b).decisions) == (2, 16)


def test_what_cannot_be_compared(tmp_path, run_command):
    a = recorded(tmp_path / "a.h5", p=np.ones((1, 4, 2), dtype=bool))
    with pytest.raises(
        BadInputError, match=r"b\.h5: has none of the populations p; it has q: name its nodes as in the graph"
    ):
        compare(a, recorded(tmp_path / "b.h5", q=np.ones((1, 4, 2), dtype=bool)))
    with pytest.raises(
        BadInputError, match=r"c\.h5: population p has \(samples, steps, neurons\) \(1, 5, 2\), the ref"
    ):
        compare(a, recorded(tmp_path / "c.h5", p=np.ones((1, 5, 2), dtype=bool)))
    printed = run_command("bench", "compare", a, a, "--max-rise-spikes", "0.1", code=2)
    assert "a recording has only spikes; the only bound for it is --identical" in printed.err
    printed = run_command("bench", "compare", a, tmp_path, code=2)
    assert "make one with mksgn-deploy -o" in printed.err
