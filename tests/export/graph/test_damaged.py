"""Every reader of HDF5 returns or refuses in one line, whatever was done to a file that was valid."""

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, settings

from mksgn.common.errors import BadInputError
from mksgn.deploy import nir_data
from mksgn.export.graph import files
from mksgn.export.lava_dl import file as lava_dl_file
from mksgn.export.quantization.any_graph import quantize_any
from tests.support.damaged_hdf5 import Damage, damages
from tests.support.graphs import chain, inp, lif, linear, out
from tests.support.paths import DATA
from tests.support.tiers import examples

SECONDS = 20  # of one reading on a busy machine; they take hundredths


def read_recording(path: Path) -> None:
    nir_data.dt_of_file(path)
    nir_data.read(path, 1e-4)


@cache
def folder() -> Path:
    """A quantised graph and a recording of both kinds of data."""
    place = Path(tempfile.mkdtemp())
    graph = chain(("x", inp(4)), ("w", linear(np.eye(3, 4))), ("n", lif(3)), ("y", out(3)))
    files.write(quantize_any(graph, 8, np.ones((2, 4, 4), dtype=np.float32)), place / "quantised.nir")
    gridded = nir.TimeGriddedData(np.ones((2, 5, 3), dtype=bool), 1e-4)
    data = {"p": nir.NIRNodeData({"spikes": gridded}), "q": nir.NIRNodeData({"spikes": gridded.to_event(30)})}
    nir.write_data(str(place / "recording.h5"), nir.NIRGraphData(data))
    return place


READERS: dict[str, tuple[Callable[[Path], object], Callable[[], Path]]] = {
    "quantised": (files.read, lambda: folder() / "quantised.nir"),
    "nested": (files.read, lambda: DATA / "nir_1.0.6_nested.nir"),
    "image": (files.read, lambda: DATA / "nir_1.0.6_image.nir"),
    "old": (files.read, lambda: DATA / "nir_0.2.0_line.nir"),
    "lava-dl": (lava_dl_file.read, lambda: DATA / "foreign" / "lava_dl.net"),
    "recording": (read_recording, lambda: folder() / "recording.h5"),
}


def check(name: str, damage: Damage, place: Path) -> None:
    """Read a damaged copy; only a BadInputError of one line may come."""
    read, source = READERS[name]
    copy = place / source().name
    shutil.copy(source(), copy)
    damage.apply(copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(copy)
        except BadInputError as error:
            message = str(error)
        else:
            message = ""
    assert "\n" not in message
    assert len(message) < 2000


@pytest.mark.parametrize("name", READERS)
def test_edited_files(name, tmp_path_factory):
    place = tmp_path_factory.mktemp("edited")

    @settings(derandomize=True, deadline=None, database=None, max_examples=examples(60, fast=5))
    @given(damages(edits=3))
    def edited(damage: Damage) -> None:
        check(name, damage, place)

    edited()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_flipped_bytes(name, tmp_path_factory):
    """In a child, which HDF5 may end, or never leave."""
    place = tmp_path_factory.mktemp("flipped")
    folder()

    @settings(derandomize=True, deadline=None, database=None, max_examples=60)
    @given(damages(edits=0, flips=16))
    def flipped(damage: Damage) -> None:
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            try:
                check(name, damage, place)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    flipped()
