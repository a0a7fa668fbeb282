"""Recordings in nir's data format: what a run spiked comes back, and what others write is read, event by event."""

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, nir_data, run, run_folder
from mksgn.deploy.run_files import SPIKES_FILE
from tests.support.graphs import DT, SETTINGS, chain, inp, lif, linear, out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two populations, as mksgn-deploy -o leaves it."""
    place = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    graph = chain(
        ("x", inp(6)), ("a", linear(rng.normal(size=(5, 6)))), ("p", lif(5, threshold=0.3)),
        ("b", linear(rng.normal(size=(4, 5)))), ("q", lif(4, threshold=0.3)), ("y", out(4)),
    )  # fmt: skip
    program = compile_graph(graph, precision="float")
    execution = run(program, (rng.random((3, 12, 6)) < 0.5).astype(np.float32))
    run_folder.write_spikes(execution, place / SPIKES_FILE)
    model = place / "model.nir"
    nir.write(model, graph)
    files = [SPIKES_FILE]
    run_folder.write_manifest(place, files, model=model, parents=[], program=program, facts={})
    return place, execution


def test_a_runs_spikes_are_read_by_nir(folder, tmp_path):
    place, execution = folder
    nir_data.write(nir_data.of_folder(place), tmp_path / "run.h5", nir_data.dt_of_folder(place))
    data = nir.read_data(tmp_path / "run.h5")
    assert sorted(data.nodes) == ["p", "q"]
    for name, spikes in execution.spikes.items():
        observed = data.nodes[name].observables["spikes"]
        assert (observed.data.dtype, observed.dt) == (bool, DT)
        np.testing.assert_array_equal(observed.data, spikes)
    assert execution.spikes["q"].any()
    again = nir_data.read(tmp_path / "run.h5", DT)
    np.testing.assert_array_equal(again.spikes["q"], execution.spikes["q"])


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1.0), st.floats(0, 0.99))
@SETTINGS
def test_events_fall_into_the_steps_in_which_they_lie(tmp_path_factory, seed, dt, shift):
    rng = np.random.default_rng(seed)
    spikes = rng.random((2, int(rng.integers(1, 200)), 3)) < 0.3
    gridded = nir.TimeGriddedData(spikes, dt)
    events = gridded.to_event(int(spikes.sum()) + 1, time_shift=shift * dt)
    path = tmp_path_factory.mktemp("events") / "events.h5"
    nir.write_data(str(path), nir.NIRGraphData({"p": nir.NIRNodeData({"spikes": events})}))
    recording = nir_data.read(path, dt)
    np.testing.assert_array_equal(recording.spikes["p"], spikes)
    assert not recording.doubled


def write(path, nodes: dict) -> None:
    nir.write_data(str(path), nir.NIRGraphData(nodes))


def events(idx, time, neurons=3, t_max=4 * DT) -> nir.EventData:
    return nir.EventData(np.array(idx), np.array(time, dtype=float), neurons, t_max)


def test_events_as_jaxsnn_writes_them(tmp_path):
    """Unused entries have index -1 and twice the last time; two events of a neuron in one step are one spike."""
    write(tmp_path / "a.h5", {"p": nir.NIRNodeData({"spikes": events([[2, 0, 2, -1]], [[0, DT, 0.5 * DT, 8 * DT]])})})
    recording = nir_data.read(tmp_path / "a.h5", DT)
    assert np.argwhere(recording.spikes["p"]).tolist() == [[0, 0, 2], [0, 1, 0]]
    assert recording.doubled == {"p": 1}


def test_nested_nodes_and_other_observables(tmp_path):
    path = tmp_path / "nested.h5"
    data = nir.TimeGriddedData(np.ones((1, 2, 3)), DT)  # 0 and 1 in another type, as hxtorch
    write(path, {"outer": nir.NIRNodeData({"spikes": data, "v": nir.TimeGriddedData(np.full((1, 2, 3), 0.5), DT)})})
    with h5py.File(path, "r+") as file:  # nir 1.0.8 cannot write a nested graph, and reads one
        inner = file.create_group("nodes/layer")
        inner.attrs["__type__"] = "NIRGraphData"
        inner.create_group("nodes")
        file.copy("nodes/outer", file["nodes/layer/nodes"], "lif")
    recording = nir_data.read(path, DT)
    assert sorted(recording.spikes) == ["layer.lif", "outer"]
    assert recording.spikes["layer.lif"].all()


REFUSED = {
    "no spikes": ({"p": {"v": nir.TimeGriddedData(np.ones((1, 2, 3)), DT)}}, "no node has the observable 'spikes'"),
    "counts": (
        {"p": {"spikes": nir.TimeGriddedData(np.full((1, 2, 3), 2), DT)}},
        "spikes are 0 or 1, and other values",
    ),
    "a neuron too many": ({"p": {"spikes": events([[3]], [[0]])}}, "an event of a neuron beyond 3, or before 0 s"),
    "before the start": ({"p": {"spikes": events([[0]], [[-DT]])}}, "an event of a neuron beyond 3, or before 0 s"),
    "milliseconds": ({"p": {"spikes": events([[0]], [[0]], t_max=1e9)}}, "expected at most .* check t_max"),
}


@pytest.mark.parametrize(("nodes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_spikes_is_refused_in_one_line(nodes, message, tmp_path):
    path = tmp_path / "bad.h5"
    write(path, {name: nir.NIRNodeData(observables) for name, observables in nodes.items()})
    with pytest.raises(BadInputError, match=message) as caught:
        nir_data.read(path, DT)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def damaged(path, how: str) -> None:
    if how == "text":
        path.write_text("nodes")
        return
    write(path, {"p": nir.NIRNodeData({"spikes": nir.TimeGriddedData(np.ones((1, 2, 3), dtype=bool), DT)})})
    with h5py.File(path, "r+") as file:
        if how == "untyped":
            del file.attrs["__type__"]
        elif how == "link":
            file["nodes/q"] = h5py.ExternalLink("other.h5", "/nodes/p")
        elif how == "no data":
            del file["nodes/p/observables/spikes/data"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", "is not an HDF5 file, as a recording of nir.write_data must be"),
        ("untyped", r"not a readable recording \(Root object is not NIRGraphData\)"),
        ("link", "'/nodes/q' is a link, perhaps into another file"),
        ("no data", "not a readable recording"),
    ],
)
def test_damaged_and_foreign_files(how, message, tmp_path):
    damaged(tmp_path / "a.h5", how)
    with pytest.raises(BadInputError, match=message):
        nir_data.read(tmp_path / "a.h5", DT)
    with pytest.raises(BadInputError, match="no such file"):
        nir_data.read(tmp_path / "none.h5", DT)
