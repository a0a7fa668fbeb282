"""mksgn/bench/progress: sums of shards in any order, no clip twice, and a file that gives back what was saved."""

import dataclasses
import json

import numpy as np
import pytest

from mksgn.bench.progress import Progress, check_same
from mksgn.bench.samples import as_samples
from mksgn.bench.shards import Network, Settings, run_shard, shards
from mksgn.common.errors import BadInputError
from mksgn.deploy import run as run_program
from mksgn.deploy.clips import clip_inputs
from tests.support.bench_runs import some_clips, student_files


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return Network.read(student_files(tmp_path_factory.mktemp("model")), "fixed")


@pytest.fixture(scope="module")
def parts(network):
    clips = some_clips(11)
    return [
        run_shard(network, as_samples(clips).take(which), which.start, Settings())
        for which in shards(np.ones(11, bool), 3)
    ]


def assert_same(one: Progress, other: Progress) -> None:
    assert one.counters.keys() == other.counters.keys()
    for name, counters in one.counters.items():
        for field in dataclasses.fields(counters):
            assert np.array_equal(getattr(counters, field.name), getattr(other.counters[name], field.name)), (
                name,
                field.name,
            )
    assert (one.names, one.bodies, one.compared) == (other.names, other.bodies, other.compared)
    assert np.array_equal(one.predictions, other.predictions)
    assert one.trains.keys() == other.trains.keys()
    for name, train in one.first_trains().items():
        assert np.array_equal(train, other.first_trains()[name])


def test_the_sum_of_the_shards_is_the_run(network, parts):
    whole = clip_inputs(network.graph, network.program, some_clips(11))
    execution = run_program(network.program, whole.inputs)
    progress = Progress({}, 11)
    for part in parts:
        progress.add(part)
    assert progress.complete
    assert progress.bodies == len(whole.inputs) > 11  # some clips have two bodies
    assert np.array_equal(progress.predictions, whole.predictions(execution))
    for name, counters in execution.counters.items():
        for field in dataclasses.fields(counters):
            assert np.array_equal(getattr(progress.counters[name], field.name), getattr(counters, field.name)), name
    for name, spikes in execution.spikes.items():
        assert np.array_equal(progress.first_trains()[name], spikes[:8])


def test_the_order_of_the_shards_changes_nothing(parts):
    one, other = Progress({}, 11), Progress({}, 11)
    for part in parts:
        one.add(part)
    for part in reversed(parts):
        other.add(part)
    assert_same(one, other)


def test_a_shard_counts_once(parts):
    progress = Progress({}, 11)
    progress.add(parts[0])
    with pytest.raises(ValueError, match="clips 0 to 2: some of them are counted already"):
        progress.add(parts[0])


def test_what_was_saved_is_there_again(parts, tmp_path):
    progress = Progress({"model": "x"}, 11, 1)
    for part in parts[1:3]:
        progress.add(part)
    progress.save(tmp_path / "progress.npz")
    again = Progress.load(tmp_path / "progress.npz")
    assert_same(progress, again)
    assert (again.identity, again.seconds.tolist()) == ({"model": "x"}, progress.seconds.tolist())
    assert again.done.tolist() == progress.done.tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["progress.npz"]


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_damaged_file_is_refused(parts, tmp_path, cut):
    progress = Progress({}, 11)
    progress.add(parts[0])
    progress.save(tmp_path / "progress.npz")
    data = (tmp_path / "progress.npz").read_bytes()
    (tmp_path / "progress.npz").write_bytes(data[:cut])
    with pytest.raises(BadInputError, match=r"progress\.npz: damaged"):
        Progress.load(tmp_path / "progress.npz")


def test_a_file_of_an_older_version_is_refused_in_one_line(tmp_path):
    """Version 1 held the bodies under the key "lanes"."""
    facts = {"schema": "mksgn.progress/1", "identity": {}, "lanes": 0}
    np.savez(tmp_path / "progress.npz", facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8))
    with pytest.raises(BadInputError) as error:
        Progress.load(tmp_path / "progress.npz")
    assert str(error.value) == (
        f"{tmp_path / 'progress.npz'}: schema is 'mksgn.progress/1', this version reads 'mksgn.progress/3'; "
        "start over with --overwrite, or in another folder (-o)"
    )


def test_what_differs_between_two_runs_is_named(tmp_path):
    check_same(tmp_path, {"a": 1, "b": [2]}, {"b": [2], "a": 1})
    with pytest.raises(BadInputError, match=r"begun with b \[2\], now \[3\]; give the same to --resume"):
        check_same(tmp_path, {"a": 1, "b": [2]}, {"a": 1, "b": [3]})
    with pytest.raises(BadInputError, match="begun with c 5, now null"):
        check_same(tmp_path, {"a": 1, "c": 5}, {"a": 1})
