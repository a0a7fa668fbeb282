"""mksgn/export/graph/files: files round-trip bit for bit, have the same bytes each time, and need no pickle."""

import hashlib
import os
import subprocess
import sys
import threading
from functools import cache

import h5py
import nir
import numpy as np
import pytest

from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
from tests.support.graphs import F32, chain, inp, out
from tests.support.paths import ROOT
from tests.support.students import calibration, tiny


@cache
def graphs(profile: str) -> nir.NIRGraph:
    model, _ = tiny(attention="none" if profile == "portable" else "self")
    return export_to_nir(model, quantize=8, calibration=calibration(model), profile=profile)


def values(graph: nir.NIRGraph) -> dict:
    return {name: node.to_dict() for name, node in sorted(graph.nodes.items())}


@pytest.mark.parametrize("profile", ["structured", "portable"])
def test_a_file_round_trips_bit_for_bit(profile, tmp_path):
    graph = graphs(profile)
    files.write(graph, tmp_path / "a.nir")
    again = files.read(tmp_path / "a.nir")
    assert sorted(map(tuple, again.edges)) == sorted(map(tuple, graph.edges))
    assert again.metadata == graph.metadata
    for name, expected in values(graph).items():
        actual = values(again)[name]
        for key, value in expected.items():
            if isinstance(value, np.ndarray):
                assert (value.dtype, value.shape, value.tobytes()) == (
                    actual[key].dtype,
                    actual[key].shape,
                    actual[key].tobytes(),
                ), (name, key)
            else:
                assert np.array_equal(np.asarray(value), np.asarray(actual[key])), (name, key)
    files.write(again, tmp_path / "b.nir")
    files.write(files.read(tmp_path / "b.nir"), tmp_path / "c.nir")
    assert (tmp_path / "b.nir").read_bytes() == (tmp_path / "c.nir").read_bytes()


EXPORT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from tests.support.students import calibration
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
model = Path({model!r})
graph = export_to_nir(model, quantize=8, calibration=calibration(checkpoint.load(model), 4))
files.write(graph, Path({out!r}))
"""


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(tmp_path):
    """In another process, with other hashes of strings, at another time."""
    model, _ = tiny()
    checkpoint.save(model, tmp_path / "model.pt")
    digests = []
    for seed in ("0", "1"):
        out = tmp_path / f"{seed}.nir"
        code = EXPORT.format(tests=str(ROOT), model=str(tmp_path / "model.pt"), out=str(out))
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        digests.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert files.read(tmp_path / "0.nir").metadata["parent"] == checkpoint.sha256(tmp_path / "model.pt")


@pytest.mark.slow
def test_a_profiler_changes_no_byte(tmp_path):
    """One that holds frames keeps HDF5's data sets open for longer, as Dask's workers do: see files.write."""
    graph, held, stop = graphs("structured"), [], threading.Event()

    def look() -> None:
        while not stop.wait(0.0005):
            held[:] = [dict(frame.f_locals) for frame in sys._current_frames().values()]

    files.write(graph, tmp_path / "alone.nir")
    profiler = threading.Thread(target=look)
    profiler.start()
    try:
        for _ in range(10):
            files.write(graph, tmp_path / "watched.nir")
            assert (tmp_path / "watched.nir").read_bytes() == (tmp_path / "alone.nir").read_bytes()
    finally:
        stop.set()
        profiler.join()
    assert held


def test_numbers_and_text_only(tmp_path):
    """No object, no opaque bytes, no reference: whatever reads HDF5 reads all of it."""
    files.write(graphs("structured"), tmp_path / "a.nir")
    kinds = set()
    with h5py.File(tmp_path / "a.nir") as file:

        def look(name, item):
            assert not item.attrs, name
            if isinstance(item, h5py.Dataset):
                text = h5py.check_string_dtype(item.dtype) is not None
                kinds.add("text" if text else item.dtype.kind)
                assert text or item.dtype.kind in "fiu", (name, item.dtype)
                assert item.dtype.kind != "V", name

        file.visititems(look)
    assert kinds == {"text", "f", "i"}


def test_a_synapse_takes_at_most_a_byte_and_a_half(tmp_path):
    """What gzip leaves of the weights; small students have proportionally more of everything else."""
    graph = graphs("structured")
    files.write(graph, tmp_path / "a.nir")
    stored = synapses = 0
    with h5py.File(tmp_path / "a.nir") as file:
        for name, node in graph.nodes.items():
            if hasattr(node, "weight") and node.weight.size > 500:
                stored += file[f"node/nodes/{name}/weight"].id.get_storage_size()
                synapses += np.count_nonzero(node.weight)
    assert synapses > 10_000
    assert stored / synapses < 1.5


def test_single_numbers_are_written_for_every_neuron(tmp_path):
    """As norse and sinabs hand them over; nir.write raises a TypeError."""
    one = {name: np.array(value, F32) for name, value in (("tau", 2e-4), ("r", 1), ("v_leak", 0), ("v_threshold", 1))}
    graph = chain(("x", inp(3)), ("n", nir.LIF(**one, v_reset=np.array(0, F32))), ("y", out(3)))
    with pytest.raises(TypeError):
        nir.write(tmp_path / "theirs.nir", graph)
    files.write(graph, tmp_path / "ours.nir")
    assert files.read(tmp_path / "ours.nir").nodes["n"].tau.tolist() == [F32(2e-4)] * 3
    nested = chain(("x", inp(3)), ("sub", graph), ("y", out(3)))
    files.write(nested, tmp_path / "nested.nir")
    assert files.read(tmp_path / "nested.nir").nodes["sub.n"].v_threshold.shape == (3,)
