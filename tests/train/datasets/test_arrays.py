"""mksgn/train/datasets/arrays: labelled arrays of a file, mapped; of Python, collected; what does not fit is named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import arrays
from mksgn.train.datasets.arrays import array_set, collected, open_arrays
from tests.support.graphs import SETTINGS

X, Y = np.arange(60, dtype=np.float32).reshape(10, 2, 3), np.arange(10) % 4


def write(path, save=np.savez, **content):
    save(path, **content)
    return f"npz:{path}"


def values(data, name="x"):
    return data.take(range(len(data))).arrays[name]


def test_a_file_of_one_part(tmp_path):
    source = write(tmp_path / "a.npz", x=X, y=Y)
    for part in ("test", "train"):
        data = open_arrays(source, part=part)
        assert data.source == "npz:a.npz"
        np.testing.assert_array_equal(values(data), X)
        np.testing.assert_array_equal(data.labels, Y)


def test_a_file_of_two_parts(tmp_path):
    source = write(tmp_path / "a.npz", x_train=X[:7], y_train=Y[:7], x_test=X[7:], y_test=Y[7:], x=X * 0)
    for part, rows in (("train", slice(7)), ("test", slice(7, None))):
        np.testing.assert_array_equal(values(open_arrays(source, part=part)), X[rows])
        np.testing.assert_array_equal(open_arrays(source, part=part).labels, Y[rows])


def test_npy_files(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    data = open_arrays(f"npy:{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}")
    np.testing.assert_array_equal(values(data), X)
    np.testing.assert_array_equal(data.labels, Y)
    assert data.source == "npy:x.npy,y.npy"
    assert open_arrays(f"npy:{tmp_path / 'x.npy'}").labels is None


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_arrays_are_mapped_whatever_their_order(tmp_path, order):
    for source in (write(tmp_path / "a.npz", x=order(X), y=Y), f"npy:{tmp_path / 'x.npy'}"):
        np.save(tmp_path / "x.npy", order(X))
        data = open_arrays(source)
        assert isinstance(data.arrays["x"], np.memmap)
        np.testing.assert_array_equal(values(data), X)


def test_a_file_larger_than_what_may_be_allocated_is_run_from_its_place(tmp_path):
    """100 GB of zeros, which a sparse file holds in no space: nothing but the samples taken is read."""
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1_000_000, 100, 250)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 1_000_000 * 100 * 250)
    data = open_arrays(f"npy:{path}").limited(3)
    assert values(data).shape == (3, 100, 250)
    assert data.sha256 != data.limited(2).sha256


def test_a_compressed_array_is_loaded_up_to_a_bound_and_refused_above(tmp_path, monkeypatch):
    source = write(tmp_path / "a.npz", np.savez_compressed, x=X, y=Y)
    np.testing.assert_array_equal(values(open_arrays(source)), X)
    monkeypatch.setattr(arrays, "LOADED", 100)
    with pytest.raises(BadInputError, match=r"a\.npz: x is compressed.*python -c"):
        open_arrays(source)


def test_one_hot_labels_and_whole_floats_are_classes(tmp_path):
    for labels in (np.eye(4)[Y], Y.astype(np.float64), Y[:, None], torch.from_numpy(Y)):
        np.testing.assert_array_equal(array_set({"x": X}, labels).labels, Y)


@given(st.integers(1, 30), st.integers(1, 40), st.booleans())
@SETTINGS
def test_a_limit_keeps_each_class_to_its_share(samples, limit, labelled):
    labels = np.arange(samples) * 7 % 3
    data = array_set({"x": np.arange(samples)[:, None]}, labels if labelled else None).limited(limit)
    assert len(data) == min(samples, limit)
    rows = values(data)[:, 0]
    assert sorted(set(rows.tolist())) == rows.tolist()
    if labelled:
        np.testing.assert_array_equal(data.labels, labels[rows])
        for one in range(3):
            share = (labels == one).sum() * len(data) / samples
            assert abs((data.labels == one).sum() - share) <= 1


def test_one_changed_value_changes_the_hash_and_the_sample_s_own():
    data, changed = array_set({"x": X}), X.copy()
    changed[4, 1, 2] += 1
    other = array_set({"x": changed})
    assert data.sha256 != other.sha256
    assert [data.digest(i) != other.digest(i) for i in range(10)] == [i == 4 for i in range(10)]
    assert data.sha256 == array_set({"x": torch.from_numpy(X)}).sha256
    assert data.sha256 != array_set({"x": X.astype(np.float64)}).sha256
    assert data.take(range(2, 5)).digest(2) == data.digest(4)


def test_inputs_are_found_by_their_names():
    single = array_set({"x": X})
    assert list(single.by_input(["input"]).arrays) == ["input"]
    assert list(array_set({"anything": X}).by_input(["input"]).arrays) == ["input"]
    both = array_set({"left": X, "right": X, "unused": X})
    assert sorted(both.by_input(["left", "right"]).arrays) == ["left", "right"]
    for inputs, given_ in ((["left", "right"], single), (["input"], both)):
        with pytest.raises(BadInputError, match=r"no array (left|input).* for the network's input; it has "):
            given_.by_input(inputs)


def test_pairs_and_batches_are_collected_alike():
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    expected = array_set({"x": X}, Y)
    loaders = (torch.utils.data.DataLoader(tensors, batch_size=4), tensors, list(zip(X, Y.tolist(), strict=True)))
    for pairs in loaders:
        data = collected(pairs)
        np.testing.assert_array_equal(values(data), X)
        np.testing.assert_array_equal(data.labels, expected.labels)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"z": X}, None),
        ({"y": Y}, "no array x_test or x, found y"),
        ({"x": X, "y": Y[:9]}, "x has 10, y has 9"),
        ({"x": X[:, 0, 0]}, r"x holds float32 of shape \(10,\)"),
        ({"x": X, "y": Y - 1}, "expected class numbers from 0 on"),
        ({"x": X, "y": Y + 0.5}, "expected class numbers from 0 on"),
        ({"x": X, "y": np.ones((10, 3))}, "is not one-hot"),
        ({"x": X.astype("S3")}, "x holds"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, fault):
    source = write(tmp_path / "a.npz", **content)
    if fault is None:
        open_arrays(source)
        return
    with pytest.raises(BadInputError, match=fault):
        open_arrays(source)


@pytest.mark.parametrize("source", ["npz:", "npz:missing.npz", "npy:missing.npy", "npy:a,b,c"])
def test_no_such_file(source):
    with pytest.raises(BadInputError):
        open_arrays(source)


def test_batches_with_the_time_axis_first_are_told_apart():
    with pytest.raises(BadInputError, match="move the time axis behind it"):
        collected([(np.zeros((25, 4, 3)), np.arange(4))])
    with pytest.raises(BadInputError, match="give all of them the same number of steps"):
        collected([(np.zeros((5, 3)), 0), (np.zeros((6, 3)), 1)])
    with pytest.raises(BadInputError, match="no samples"):
        collected([])
