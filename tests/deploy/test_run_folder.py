"""spikes.npz of a run's folder: spike trains come back, and a damaged file is refused in one line by every reader."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench.check.counts import read_arrays
from mksgn.bench.report.clip import clip_of
from mksgn.deploy import nir_data
from mksgn.deploy.run_folder import read_train, shapes
from tests.support.damaged_archives import damage_settings, edited, flipped, rezipped
from tests.support.refusals import read_or_refused, refusal
from tests.support.report_pages import manifest, moving_joints, trains, write_spikes


@pytest.fixture
def path(tmp_path):
    write_spikes(tmp_path / "spikes.npz", trains(), moving_joints())
    return tmp_path / "spikes.npz"


def readers(path) -> None:
    for reader in (
        lambda: [read_train(path, name) for name in shapes(path)],
        lambda: nir_data.of_folder(path.parent),
        lambda: read_arrays(path),
        lambda: clip_of(path.parent, manifest()),
    ):
        read_or_refused(reader)


def test_trains_come_back(path):
    assert shapes(path) == {name: train.shape for name, train in trains().items()}
    for name, train in trains().items():
        np.testing.assert_array_equal(read_train(path, name), train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape/encoder": np.array([2**40, 2**40])}, "shape/encoder is"),
        ({"shape/encoder": np.array([-1, 4, 2])}, "shape/encoder is"),
        ({"shape/encoder": np.array(3.5)}, "shape/encoder is"),
        ({"trains/encoder": np.zeros(3, np.uint8)}, "'trains/encoder' has uint8 of shape (3,) for spikes of shape"),
        ({"trains/encoder": np.zeros(3)}, "'trains/encoder' has float64"),
    ],
)
def test_trains_that_contradict_their_shape_are_refused(path, change, message):
    with np.load(path) as arrays:
        np.savez(path, **dict(arrays) | change)
    assert message in refusal(lambda: read_train(path, "encoder"))


def test_a_population_without_trains_is_refused(path):
    assert "no array 'shape/none'; run the network again" in refusal(lambda: read_train(path, "none"))


@damage_settings(100, 8)
@given(st.data())
def test_any_damage_is_read_or_refused(path, data):
    content = path.read_bytes()
    path.write_bytes(data.draw(flipped(content) | rezipped(content)))
    readers(path)
    path.write_bytes(content)


@damage_settings(60, 8)
@given(st.data())
def test_any_manifest_beside_it_gives_a_clip_or_a_refusal(path, data):
    read_or_refused(lambda: clip_of(path.parent, data.draw(edited(manifest()))))
