"""mksgn/export/graph/content_hash: a change of any value of a quantised file is found, and an edit has a way."""

import shutil
import warnings
from functools import cache
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError, MksgnWarning
from mksgn.export import export_to_nir, write_nir
from mksgn.export.graph import files
from mksgn.export.graph.content_hash import KEY
from mksgn.export.quantization.any_graph import quantize_any
from tests.support.damaged_hdf5 import values_flipped
from tests.support.graphs import DT, chain, inp, lif, linear, out
from tests.support.refusals import refusal
from tests.support.students import calibration, tiny
from tests.support.tiers import examples

REFUSED = (
    "differs from what was exported: its content does not match the hash in its metadata; export it again, or write"
)


@cache
def quantised() -> nir.NIRGraph:
    rng = np.random.default_rng(0)
    graph = chain(("x", inp(4)), ("w", linear(rng.normal(size=(3, 4)))), ("n", lif(3)), ("y", out(3)))
    return quantize_any(graph, 8, (rng.random((4, 9, 4)) < 0.5).astype(np.float32))


def edges(graph: nir.NIRGraph) -> list[tuple[str, str]]:
    return sorted(map(tuple, graph.edges))


def test_every_changed_value_is_refused(tmp_path):
    """Each number and each text in turn, of a small file; all refusals are one line."""
    whole, copy = tmp_path / "whole.nir", tmp_path / "copy.nir"
    files.write(quantised(), whole)
    changes = [change for change in values_flipped(whole) if change[0] != "version"]
    assert len(changes) > 30
    for place, change in changes[:: 1 if examples(5) == 5 else 4]:
        shutil.copy(whole, copy)
        change(copy)
        assert str(copy) in refusal(lambda: files.read(copy)), place


@pytest.mark.slow
def test_every_changed_value_of_a_student_is_refused(tmp_path):
    """Of every fourth data set in turn the first, the last and one number between."""
    model, _ = tiny(frames=4, stream_channels=2, widths=(2,))
    whole, copy = tmp_path / "whole.nir", tmp_path / "copy.nir"
    files.write(export_to_nir(model, quantize=8, calibration=calibration(model)), whole)
    changes: dict[str, list] = {}
    for place, change in values_flipped(whole):
        changes.setdefault(place, []).append(change)
    changes.pop("version", None)
    for turn, (place, all_of_it) in enumerate(list(changes.items())[::4]):
        shutil.copy(whole, copy)
        all_of_it[(0, len(all_of_it) // 2, -1)[turn % 3]](copy)
        assert str(copy) in refusal(lambda: files.read(copy)), place


def test_the_hash_is_the_files_alone(tmp_path):
    files.write(quantised(), tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir") as file:
        assert len(file[f"node/metadata/{KEY}"][()]) == 64
    graph = files.read(tmp_path / "a.nir")
    assert KEY not in graph.metadata
    assert graph.metadata == quantised().metadata
    assert edges(graph) == edges(quantised())


def edit(path: Path) -> nir.NIRGraph:
    """Change a weight with nir alone."""
    graph = nir.read(path)
    weighted = next(node for node in graph.nodes.values() if isinstance(node, nir.Linear | nir.Affine))
    weighted.weight.flat[0] += 2 * np.abs(weighted.weight[weighted.weight != 0]).min()
    return graph


def test_a_graph_that_was_edited_is_written_with_its_own_hash(tmp_path):
    path = tmp_path / "a.nir"
    files.write(quantised(), path)
    nir.write(path, nir.read(path))
    assert edges(files.read(path)) == edges(quantised())  # nothing was changed
    graph = edit(path)
    nir.write(path, graph)
    assert REFUSED in refusal(lambda: files.read(path))
    write_nir(graph, path)
    files.read(path)
    del graph.metadata[KEY]
    nir.write(path, graph)
    with pytest.warns(MksgnWarning, match=r"a\.nir: was quantised without a hash of its content"):
        files.read(path)


@pytest.mark.parametrize("value", [3, "", "0" * 64, np.zeros(64)])
def test_a_hash_of_another_kind(value, tmp_path):
    files.write(quantised(), tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        del file[f"node/metadata/{KEY}"]
        file[f"node/metadata/{KEY}"] = value
    with pytest.raises(BadInputError, match="differs from what was exported"):
        files.read(tmp_path / "a.nir")


def test_files_without_quantisation_have_none_and_say_nothing(tmp_path):
    graph = chain(("x", inp(4)), ("w", linear(np.ones((3, 4)))), ("y", out(3)))
    files.write(graph, tmp_path / "a.nir")
    with warnings.catch_warnings():
        warnings.simplefilter("error", MksgnWarning)
        assert files.read(tmp_path / "a.nir").metadata == {"dt": DT}
