"""Values of lava-dl's HDF5 files: numbers out of range, and damaged, foreign or hostile files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mksgn.common.errors import BadInputError, MksgnWarning
from mksgn.export.lava_dl.file import read
from tests.support.lava_dl_files import Layers, conv, dense, inp, write
from tests.support.netx import assert_refused

W = np.array([[20, -4, 6], [3, 5, 70]])
C = np.full((2, 1, 1, 1), 30)
CONV_IN = inp(1, 3, 4)
DAMAGES = {
    "cut": "not a readable HDF5 file .*truncated",
    "not HDF5": "is not an HDF5 file, as a lava-dl network must be; name another file",
    "foreign": "has no group 'layer', so it is not a lava-dl network",
    "gap": "layer 1 of 2 is missing; number them",
    "no layers": "layer 0 of 0 is missing",
    "untyped": "layer 1 has no 'type'",
    "no neurons": "has no layer with neurons",
    "dataset": "layer 1 has no 'type'",
    "deep": "'a' in /layer/1/neuron is nested too deeply",
    "null": "'/layer/1/bias' holds no value",
    "soft link": "'/layer/1/weight' is a link, perhaps into another file",
    "external link": "'/layer/1/weight' is a link, perhaps into another file",
    "virtual": "'/layer/1/weight' has its values in another file",
    "objects": "'/layer/1/weight' holds sequences of variable length, expected integers",
    "compound": "'/layer/1/weight' holds records or complex numbers, expected integers",
    "huge": "'/layer/1/weight' declares 1,125,899,906,842,624 elements, which brings the file to .* the limit for a file of",
}
REFUSED: dict[str, tuple[Layers, str]] = {
    "broken weight": (
        [inp(3), dense(W + 0.5)],
        r"weight holds 20.5, which is not an integer; quantise it, since netx truncates it",
    ),
    "NaN": ([inp(3), dense(W * np.nan)], "weight holds nan, which is not an integer"),
    "weight beyond float32": ([CONV_IN, conv(C << 20, (3, 4))], "weight holds 31457280, outside -16777216"),
    "no weights": ([inp(3), {k: v for k, v in dense(W).items() if k != "weight"}], "weight is None, expected numbers"),
    "text for weights": ([inp(3), dense([[1]]) | {"weight": "12"}], "weight is '12', expected numbers"),
    "features": ([inp(3), dense(W, inFeatures=4)], r"inFeatures is \(4,\), but its other values give \(3,\); export"),
    "bias of 13 bits": ([inp(3), dense(W, bias=np.array([4096, 0]))], "bias holds 4096, outside -4096 … 4095; scale"),
    "broken bias": ([inp(3), dense(W, bias=np.array([0.5, 0]))], "bias holds 0.5, which is not an integer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name, tmp_path):
    assert_refused(tmp_path / "net.net", *REFUSED[name])


def damage(path: Path, how: str) -> None:
    """Damage a valid file."""
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        return
    if how == "not HDF5":
        path.write_bytes(b"PK\x03\x04" * 1000)
        return
    with h5py.File(path, "r+") as file:
        layer = file["layer/1"]
        if how == "foreign":
            file.move("layer", "model_weights")
        elif how == "gap":
            file.move("layer/1", "layer/2")
        elif how == "no layers":
            del file["layer/0"], file["layer/1"]
        elif how == "untyped":
            del layer["type"]
        elif how == "no neurons":
            del file["layer/1"]
        elif how == "dataset":
            del file["layer/1"]
            file["layer/1"] = 3
        elif how == "deep":
            layer["neuron/a/b/c"] = 3
        elif how == "null":
            layer["bias"] = h5py.Empty("f")
        else:
            del layer["weight"]
            if how == "soft link":
                layer["weight"] = h5py.SoftLink("/layer/0/shape")
            elif how == "external link":
                layer["weight"] = h5py.ExternalLink("/etc/passwd", "/x")
            elif how == "virtual":
                layout = h5py.VirtualLayout((2, 3), "i8")
                layout[:] = h5py.VirtualSource("other.h5", "x", (2, 3))
                layer.create_virtual_dataset("weight", layout)
            elif how == "objects":
                layer.create_dataset("weight", (2,), h5py.vlen_dtype(np.int64))
            elif how == "compound":
                layer["weight"] = np.zeros(2, dtype=[("a", "i4"), ("b", "f8")])
            elif how == "huge":  # 8 PB in a file of some kB
                layer.create_dataset("weight", (2**20, 2**30), "i8", chunks=(2**10, 2**10))


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_foreign_and_hostile_files(how, tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    damage(path, how)
    with pytest.raises(BadInputError, match=DAMAGES[how]) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInputError, match="no such file; slayer's blocks write one with export_hdf5"):
        read(tmp_path / "none.net")


def test_what_lies_beside_the_layers_is_reported_and_not_fatal(tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    with h5py.File(path, "r+") as file:
        file["optimizer/step"] = 3
    with pytest.warns(MksgnWarning, match=r"net\.net: netx drops /optimizer, and so does the graph"):
        assert "layer1" in read(path).nodes


def test_slayerpytorchs_simulation_group_is_not_the_networks(tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    with h5py.File(path, "r+") as file:
        file["simulation/Ts"], file["simulation/tSample"] = 1, 300
    assert "layer1" in read(path).nodes
