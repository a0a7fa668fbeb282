"""What a lava-dl file must not hold, each with the layer, the reason and the remedy; and files that are none. The facts about netx
that the refusals rest on are in tests/export/lava_dl/test_file.py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.lava_dl.file import read
from tests.support.lava_dl_files import FLATTEN, Layers, conv, dense, inp, neuron, recurrent, write

W = np.array([[20, -4, 6], [3, 5, 70]])
C = np.full((2, 1, 1, 1), 30)
CONV_IN = inp(1, 3, 4)
COMPLEX = {k: v for k, v in dense(W).items() if k != "weight"} | {"weight/real": W, "weight/imag": W}
REFUSED: dict[str, tuple[Layers, str]] = {
    **{
        kind: (
            [inp(3), dense(W, type=kind)],
            rf"layer 1 \({kind}\): netx cannot run this type, or silently skips it; build",
        )
        for kind in ("pool", "convT", "unpool", "average", "concat", "dense_comp", "Dense", "whatever")
    },
    "SDNN": (
        [inp(3), dense(W, **neuron(type="SDNN"))],
        r"layer 1 \(dense\): neurons of type 'SDNN' do not exist in NIR; train with",
    ),
    "RF": ([inp(3), dense(W, **neuron(type="RF_PHASE"))], "neurons of type 'RF_PHASE'"),
    "numbers for a type": ([inp(3), dense(W, **neuron(type=np.arange(5)))], r"neurons of type '\[0 1 2 3 4\]' do not"),
    "ALIF": ([inp(3), dense(W, **neuron(type="ALIF", thDecay=3))], "neurons of type 'ALIF'"),
    "no neuron": (
        [inp(3), {k: v for k, v in dense(W).items() if "/" not in k}],
        "has no neuron: .* threshold of 131072; give",
    ),
    "a read-out": (
        [inp(3), dense(W, **neuron(vth=2**18 - 1))],
        "vThMant is 262143: a read-out that never fires; leave",
    ),
    "18 bits": ([inp(3), dense(W, **neuron(vth=2**17))], "neuron/vThMant holds 131072, outside 0 … 131071; scale"),
    "negative threshold": ([inp(3), dense(W, **neuron(vth=-1))], "neuron/vThMant holds -1, outside 0"),
    "refractory": (
        [inp(3), dense(W, **neuron(refDelay=2))],
        "neuron/refDelay is 2, which netx silently drops .* refDelay = 1",
    ),
    "graded": (
        [inp(3), dense(W, **neuron(gradedSpike=True))],
        "neuron/gradedSpike is 1, .* train with gradedSpike = 0",
    ),
    "message bits": ([inp(3), dense(W, **neuron(messageBits=8))], "neuron/messageBits is 8"),
    "norm's exponent": ([inp(3), dense(W, **neuron(weight_exp=np.array([-2.0])))], "neuron/weight_exp is -2"),
    "synapse's exponent": ([inp(3), dense(W, **neuron(wgtExp=6))], "neuron/wgtExp is 6"),
    "theta": ([inp(3), dense(W, **neuron(theta=100))], "neuron/theta is not 64 vThMant"),
    "neuron's key": ([inp(3), dense(W, **neuron(tauRef=100))], "netx silently drops neuron/tauRef; remove it"),
    "layer's key": ([inp(3), dense(W, mask=W)], "netx silently drops 'mask'; remove it"),
    "nested key": ([inp(3), dense(W, **{"shape2/x": 1})], "netx silently drops 'shape2/x'"),
    "an endless current": ([inp(3), dense(W, **neuron(i=0))], "neuron/iDecay is 0: NIR's time constants are finite"),
    "an endless membrane": ([inp(3), dense(W, **neuron(i=1024, v=0))], "neuron/vDecay is 0: NIR's time .* at least 1"),
    "partly endless": ([inp(3), dense(W, **neuron(v=np.array([0, 5])))], "neuron/vDecay is 0"),
    "bias of an IF": (
        [inp(3), dense(W, delay=np.array([1, 2]), bias=np.array([1, 2]), **neuron(v=0))],
        "IF cannot hold a bias",
    ),
    "decay above 12 bits": (
        [inp(3), dense(W, **neuron(v=4097))],
        "neuron/vDecay holds 4097, outside 0 … 4096; clamp it",
    ),
    "broken decay": (
        [inp(3), dense(W, **neuron(i=0.25))],
        "neuron/iDecay holds 0.25, which is not an integer; quantise it",
    ),
    "three thresholds": ([inp(3), dense(W, **neuron(vth=np.arange(3)))], "neuron/vThMant has 3 values for 2 channels"),
    "broken weight": (
        [inp(3), dense(W + 0.5)],
        r"weight holds 20.5, which is not an integer; quantise it, netx truncates it",
    ),
    "NaN": ([inp(3), dense(W * np.nan)], "weight holds nan, which is not an integer"),
    "weight beyond float32": ([CONV_IN, conv(C << 20, (3, 4))], "weight holds 31457280, outside -16777216"),
    "complex": ([inp(3), COMPLEX], "complex weights are not in NIR; train"),
    "shape of weights": (
        [inp(3), dense(W, shape=np.array([3]))],
        r"weight has shape \(2, 3\); write it as \(3, inputs\)",
    ),
    "no weights": ([inp(3), {k: v for k, v in dense(W).items() if k != "weight"}], "weight is None, expected numbers"),
    "text for weights": ([inp(3), dense([[1]]) | {"weight": "12"}], "weight is '12', expected numbers"),
    "recurrent shape": ([inp(3), recurrent(W, W)], r"weight_rec has shape \(2, 3\); write it as \(2, 2\)"),
    "recurrent delay": (
        [inp(3), recurrent(W, W[:, :2], delay=np.zeros(2))],
        r"\(dense_rec\): netx delays the loop as well",
    ),
    "recurrent weight": (
        [inp(3), recurrent(-W, 300 * np.eye(2))],
        r"netx would run weight 300 from input 0 to output 0 as 0",
    ),
    "features": ([inp(3), dense(W, inFeatures=4)], r"inFeatures is \(4,\), but its other values give \(3,\); export"),
    "wrong input": ([inp(4), dense(W)], r"3 columns of weights on an input \(4,\); export it again"),
    "no flatten": (
        [inp(1, 1, 1), dense([[1]]), inp(3)],
        "netx leaves an input that is not the first layer unconnected",
    ),
    "unflattened": (
        [inp(3, 1, 2), dense(np.ones((2, 6)))],
        r"weights on an input \(3, 1, 2\); put a flatten layer before it",
    ),
    "bias of 13 bits": ([inp(3), dense(W, bias=np.array([4096, 0]))], "bias holds 4096, outside -4096 … 4095; scale"),
    "bias' shape": ([inp(3), dense(W, bias=np.arange(3))], r"bias has 3 values; write it as \(2,\)"),
    "broken bias": ([inp(3), dense(W, bias=np.array([0.5, 0]))], "bias holds 0.5, which is not an integer"),
    "long delay": (
        [inp(3), dense(W, delay=np.array([63, 0]))],
        "delay holds 63, outside 0 … 62; train with shorter .* clamps",
    ),
    "negative delay": ([inp(3), dense(W, delay=np.array([-1, 0]))], "delay holds -1, outside 0"),
    "broken delay": ([inp(3), dense(W, delay=np.array([1.5, 0]))], "delay holds 1.5, which is not an integer"),
    "delay's shape": (
        [inp(3), dense(W, delay=np.arange(4))],
        r"delay has shape \(4,\); write it as \(2,\), \(3,\) or \(2, 3\)",
    ),
    "conv's delay": (
        [CONV_IN, conv(C, (3, 4), delay=np.array([1, 0]))],
        "netx silently drops the delays of a convolution",
    ),
    "conv's neuron": ([CONV_IN, {k: v for k, v in conv(C, (3, 4)).items() if "/" not in k}], "has no neuron"),
    "conv's bias": (
        [CONV_IN, conv(C, (3, 4), bias=np.ones((2, 1, 1)))],
        r"bias has shape \(2, 1, 1\); write it as \(2,\)",
    ),
    "conv's weights": (
        [CONV_IN, conv(C, (3, 4)) | {"weight": C[0]}],
        r"weight has shape \(1, 1, 1\); write it as \(C_out",
    ),
    "conv's shape": ([CONV_IN, conv(C, (4, 3))], r"shape is \(2, 4, 3\), but .* give \(2, 3, 4\); export it again"),
    "conv's kernel": ([CONV_IN, conv(C, (3, 4), kernelSize=np.array([3, 3]))], r"kernelSize is \(3, 3\), but"),
    "conv's stride": ([CONV_IN, conv(C, (3, 4)) | {"stride": np.ones(3)}], "stride has 3 values, expected 1 or 2"),
    "conv's groups": (
        [inp(128, 1, 1), conv(np.ones((128, 1, 1, 1)), (1, 1), groups=128)],
        "groups holds 128, outside 1 … 127",
    ),
    "conv's input": ([inp(3), conv(C, (3, 4))], r"1 groups of 1 channels, 2 in all, on an input \(3,\)"),
    "conv without input": (
        [conv(C, (3, 4), 2)],
        r"the file does not give the size of the input; give input_shape = \(C, H, W\)",
    ),
    "flatten at the end": (
        [CONV_IN, conv(C, (3, 4)), FLATTEN],
        r"layer 2 \(flatten\): netx drops a flatten that no dense",
    ),
    "flatten before a conv": ([CONV_IN, FLATTEN, conv(C, (3, 4))], r"layer 1 \(flatten\): netx drops a flatten"),
    "two axes": ([inp(3, 4), dense(W)], r"shape is \(3, 4\), netx runs \(N,\) and \(C, H, W\)"),
    "input's weight": ([inp(3, weight=3), dense(W)], "netx silently drops weight and bias of an input without neurons"),
    "input's memory": (
        [inp(3, **neuron(i=1024)), dense(W)],
        r"layer 0 \(input\): neuron/iDecay is 1024: SLAYER filters the input",
    ),
    "input's weights": (
        [inp(3, weight=[1, 2, 3], **neuron()), dense(W)],
        "weight or bias of the input has more than one value",
    ),
    "input's delay": ([inp(3, delay=1, **neuron()), dense(W)], "netx silently drops 'delay'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name, tmp_path):
    layers, message = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        read(write(tmp_path / "net.net", layers))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "net.net: layer ") in str(caught.value)


def test_the_given_input_shape_must_be_the_files(tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    with pytest.raises(UnsupportedLayerError, match=r"layer 0 \(input\): shape is \(3,\), input_shape \(4,\); leave"):
        read(path, input_shape=(4,))
    assert read(path, input_shape=(3,)).nodes["input"].input_type["input"] == [3]


@pytest.mark.parametrize("dt", [0.0, -1e-4, np.nan, np.inf])
def test_dt_is_a_time(dt, tmp_path):
    with pytest.raises(BadInputError, match="expected a time step in seconds above 0"):
        read(write(tmp_path / "net.net", [inp(3), dense(W)]), dt=dt)


# --- files that are no files ----------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    """Make a good file bad."""
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
        elif how == "top key":
            file["optimizer"] = 3
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


DAMAGES = {
    "cut": "not a readable HDF5 file .*truncated",
    "not HDF5": "not a readable HDF5 file",
    "foreign": "has no group 'layer', so it is not a lava-dl network",
    "top key": "netx silently drops 'optimizer' next to 'layer'; remove it",
    "gap": "layer 1 of 2 is missing; number them",
    "no layers": "layer 0 of 0 is missing",
    "untyped": "layer 1 has no 'type'",
    "no neurons": "has no layer with neurons",
    "dataset": "layer 1 has no 'type'",
    "deep": "'a' in /layer/1/neuron is a link, in another file, or nested too deeply",
    "null": "bias holds None values",
    "soft link": "'weight' in /layer/1 is a link",
    "external link": "'weight' in /layer/1 is a link",
    "virtual": "'weight' in /layer/1 is a link, in another file",
    "objects": "weight holds 2 values of object; only text and up to",
    "compound": "weight holds 2 values of .*; only text and up to",
    "huge": "weight holds 1125899906842624 values of int64; only text and up to 268435456 numbers",
}


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


def test_slayerpytorchs_simulation_group_is_not_the_networks(tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    with h5py.File(path, "r+") as file:
        file["simulation/Ts"], file["simulation/tSample"] = 1, 300
    assert "layer1" in read(path).nodes
