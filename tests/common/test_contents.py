"""What stands in the place of a file is named, with a remedy, by every reader that takes files of others."""

import h5py
import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.deploy import arrays, nir_data
from mksgn.export.graph import files
from mksgn.export.lava_dl import file as lava_dl_file
from mksgn.train import checkpoint
from mksgn.train.datasets import ctrgcn_npz, pyskl_pkl

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:9b0bbd50581d\nsize 2701856\n"
READERS = {
    "graph.nir": files.read,
    "net.net": lava_dl_file.read,
    "x.npy": arrays.load,
    "recording.h5": lambda path: nir_data.read(path, 1e-4),
    "model.pt": checkpoint.load,
    "NTU60_CS.npz": lambda path: ctrgcn_npz.read(path, None, "test"),
    "ntu60_3danno.pkl": lambda path: pyskl_pkl.read(path, "xsub", "test"),
}


def refused(name: str, content: bytes, folder) -> str:
    (folder / name).write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        READERS[name](folder / name)
    assert str(caught.value).startswith(str(folder / name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_pointers_of_git_lfs(name, tmp_path):
    assert "is a Git LFS pointer, not the file itself; run git lfs pull" in refused(name, POINTER, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_files_without_content(name, tmp_path):
    message = refused(name, b"", tmp_path)  # readers of clips say what they expected, too
    assert "fetch" in message or "is empty, 0 bytes" in message


def hdf5_of(kind: str, path) -> None:
    if kind == "recordings":
        data = nir.NIRNodeData({"spikes": nir.TimeGriddedData(np.zeros((1, 2, 3), dtype=bool), 1e-4)})
        nir.write_data(path, nir.NIRGraphData({"lif": data}))
        return
    with h5py.File(path, "w") as file:
        file.create_group("layer/0" if kind == "lava-dl" else "model_weights/dense")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lava-dl", r"is a lava-dl network; convert it with mksgn-export .*other\.nir --to nir"),
        ("recordings", r"holds recordings \(NIRGraphData\), not a graph; compare them with mksgn-bench compare"),
        ("keras", "is another kind of HDF5 file, with model_weights and no 'node'"),
    ],
)
def test_hdf5_of_another_kind_in_place_of_a_graph(kind, message, tmp_path):
    path = tmp_path / "other.nir"
    hdf5_of(kind, path)
    with pytest.raises(BadInputError, match=message):
        files.read(path)


def test_text_in_place_of_a_graph(tmp_path):
    (tmp_path / "a.nir").write_text("{}")
    with pytest.raises(BadInputError, match="is not an HDF5 file, as a NIR file must be"):
        files.read(tmp_path / "a.nir")
