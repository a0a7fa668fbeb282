"""mksgn/export/graph/metadata: entries of any type, size and depth are read, or refused in one line."""

import json

import h5py
import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.export.graph import files
from mksgn.export.graph.metadata import STEPS_LIMIT, check_metadata, input_normaliser, json_of
from mksgn.train.streams import STREAMS
from tests.support.graphs import chain, inp, linear, out
from tests.support.refusals import refusal

DEEP = "[" * 100_000
NORMALISER = {"graph": "ntu-25", "frames": 16, "units": dict.fromkeys(STREAMS, 0.01), "lattice_exponent": -5}
SCALE = {"exponent": -3, "scale": 8.0, "binding": "weights", "saturated": 0}
ENTRIES = {
    "steps as text": ({"steps": "7"}, "metadata steps: is '7', expected a whole number from 1 to 1,048,576"),
    "steps as a list": ({"steps": np.array([1, 2])}, r"metadata steps: is array\(\[1, 2\]\), expected a whole number"),
    "steps beyond reason": ({"steps": 10**7}, "metadata steps: is 10000000, expected a whole number from 1 to"),
    "steps NaN": ({"steps": float("nan")}, "metadata steps: is nan, expected a whole number"),
    "steps true": ({"steps": np.bool_(True)}, "metadata steps: is True, expected a whole number"),
    "no steps": ({"steps": 0}, "metadata steps: is 0, expected a whole number from 1"),
    "half a step": ({"steps": 1.5}, "metadata steps: is 1.5, expected a whole number"),
    "dt as text": ({"dt": "1e-4"}, "metadata dt: is '1e-4', expected seconds above 0"),
    "dt infinite": ({"dt": float("inf")}, "metadata dt: is inf, expected seconds above 0"),
    "if_dt negative": ({"if_dt": -1.0}, "metadata if_dt: is -1.0, expected seconds above 0"),
    "spike_delay": ({"spike_delay": 2}, "metadata spike_delay: is 2, expected a whole number from 0 to 1"),
    "profile": ({"profile": 3}, "metadata profile: is 3, expected text; export the file again"),
    "parent": ({"parent": np.zeros(2)}, r"metadata parent: is array\(\[0., 0.\]\), expected text"),
    "schema": ({"schema": "mksgn.nir/2"}, "schema 'mksgn.nir/2' is newer than mksgn.nir/1; read it with a newer mksgn"),
    "no JSON": ({"classes": "classes"}, "metadata classes: not JSON"),
    "JSON as numbers": ({"classes": np.arange(3)}, "metadata classes: is .*, expected JSON as text"),
    "classes as a dict": ({"classes": "{}"}, "metadata classes: Input should be a valid list; export the file again"),
    "classes of numbers": ({"classes": "[1]"}, "metadata classes: 0: Input should be a valid string; got 1"),
    "deep": ({"training": DEEP}, "metadata training: not JSON"),
    "digits": ({"training": "9" * 5000}, "metadata training: not JSON"),
    "NaN": ({"training": '{"a": NaN}'}, "metadata training: not JSON .*NaN is not a JSON number"),
    "quantization null": ({"quantization": "null"}, "metadata quantization: Input should be"),
    "quantization of nothing": ({"quantization": "{}"}, r"metadata quantization: populations: Field required"),
    "student": ({"student": '{"heads": 3}'}, "student config: "),
    "escapes": ({"classes": "\x1b[31m\n"}, "metadata classes: not JSON"),
}  # fmt: skip


def graph(**metadata: object) -> nir.NIRGraph:
    made = chain(("x", inp(3)), ("w", linear(np.ones((2, 3)))), ("y", out(2)))
    made.metadata = dict(metadata)
    return made


def write(made: nir.NIRGraph, path) -> None:
    nir.write(path, made, compression=None)


@pytest.mark.parametrize(("metadata", "message"), ENTRIES.values(), ids=ENTRIES)
def test_entries_of_another_kind_are_refused(metadata, message, tmp_path):
    write(graph(**metadata), tmp_path / "a.nir")
    with pytest.raises(BadInputError, match=message) as caught:
        files.read(tmp_path / "a.nir")
    assert str(caught.value).startswith(f"{tmp_path / 'a.nir'}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"exponent": 1e9}, "populations.n.exponent: Input should be"),
        ({"exponent": 200}, "populations.n.exponent: Input should be less than or equal to 126; got 200"),
        ({"saturated": "many"}, "populations.n.saturated: Input should be a valid integer"),
        ({"scale": -1}, "populations.n.scale: Input should be greater than 0; got -1"),
    ],
)
def test_scales_out_of_range_are_refused(entries, message):
    report = {"bits": 8, "exact_on_chip": True, "populations": {"n": SCALE}}
    assert json_of(graph(quantization=json.dumps(report)), "quantization") == report
    report["populations"] = {"n": SCALE | entries}
    assert message in refusal(lambda: check_metadata(graph(quantization=json.dumps(report))))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"frames": -1}, "normaliser: frames is -1, expected 2 to 4096"),
        ({"frames": 10**9}, "normaliser: frames is 1000000000, expected 2 to 4096"),
        ({"frames": "x"}, "normaliser: frames is 'x', expected 2 to 4096"),
        ({"lattice_exponent": 1e4}, "normaliser: lattice_exponent is 10000.0, expected -30 to 0"),
        ({"units": []}, "streams []: name at least one, and each at most once"),
        ({"units": {"joint": -1.0}}, "expected a positive number for each stream"),
        ({"graph": "none"}, "no skeleton graph is named 'none'"),
        ({"graph": None, "units": None}, "expected graph, frames, units by stream and lattice_exponent"),
    ],
)
def test_normalisers_out_of_range_are_refused(entries, message, tmp_path):
    made = graph()
    made.nodes["x"].metadata = {"normaliser": json.dumps(NORMALISER)}
    assert input_normaliser(made).to_dict() == NORMALISER
    made.nodes["x"].metadata = {"normaliser": json.dumps(NORMALISER | entries)}
    write(made, tmp_path / "a.nir")
    assert message in refusal(lambda: files.read(tmp_path / "a.nir"))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"reset": np.zeros(2)}, "node 'w': metadata reset: is array([0., 0.]), expected text"),
        ({"integration": 3}, "node 'w': metadata integration: is 3, expected text"),
        ({"v_init": np.array([np.nan])}, "node 'w': metadata v_init: holds a value that is not a finite number"),
        ({"signal": np.zeros(0)}, "node 'w': metadata signal: is array([], dtype=float64), expected text"),
    ],
)
def test_metadata_of_nodes(metadata, message, tmp_path):
    made = graph()
    made.nodes["w"].metadata = metadata
    write(made, tmp_path / "a.nir")
    assert message in refusal(lambda: files.read(tmp_path / "a.nir"))


def test_metadata_that_are_no_group(tmp_path):
    write(graph(), tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        file["node/nodes/w/metadata"] = 3
    assert "node 'w': metadata is a int64, expected entries by name" in refusal(lambda: files.read(tmp_path / "a.nir"))


def test_what_others_write_is_kept(tmp_path):
    """Entries that no stage reads may be anything that HDF5 holds, in groups too."""
    made = graph(author="ä\nb", array=np.arange(3), inner={"a": 1.5, "b": {"c": "d"}}, steps=STEPS_LIMIT, dt=1)
    write(made, tmp_path / "a.nir")
    found = files.read(tmp_path / "a.nir").metadata
    assert (found["author"], found["inner"]["b"]["c"], found["steps"]) == ("ä\nb", "d", STEPS_LIMIT)
