"""mksgn/bench/progress: sums of shards in any order, no clip twice, and a file that gives back what was saved."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench import progress as progress_file
from mksgn.bench.progress import Progress, check_same
from mksgn.bench.samples import as_samples
from mksgn.bench.shards import Compared, Network, Packed, Settings, Shard, run_shard, shards
from mksgn.common.errors import BadInputError
from mksgn.deploy import run as run_program
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.execution import Counters
from tests.support.bench_runs import some_clips, student_files
from tests.support.damaged_archives import damage_settings, edited, flipped, rezipped
from tests.support.refusals import read_or_refused


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


def small_progress() -> Progress:
    """Progress of a run of three clips, of which two are done, without a network."""
    counters = Counters(5, 20, 18, 0, 24, 0, [20], [5], 1.5, 0.5, np.array([[2, 0], [3, 0]]))
    spikes = np.random.default_rng(0).random((2, 3, 2, 2)) < 0.5
    shard = Shard(
        first=1,
        names=["b", "c"],
        digests=["1" * 32, "2" * 32],
        predictions=np.array([1, 0]),
        bodies=2,
        counters={"lif": counters},
        seconds=(0.25,),
        compared=Compared(("torch",), 24, 1, (0, 0, 1, 2), 0),
        trains={1: {"lif": Packed.of(spikes[:1])}, 2: {"lif": Packed.of(spikes[1:])}},
    )
    progress = Progress({"model": "x", "repeats": 1, "clips": 3}, 3)
    progress.add(shard)
    return progress


def stored(folder) -> dict[str, np.ndarray]:
    small_progress().save(folder / "progress.npz")
    with np.load(folder / "progress.npz") as arrays:
        return dict(arrays)


def resealed(folder, arrays) -> None:
    """Write arrays with the hash that they then have."""
    arrays = {name: x for name, x in arrays.items() if name != progress_file.SEAL}
    np.savez(folder / "progress.npz", **arrays, **{progress_file.SEAL: progress_file._seal(arrays)})


def loaded_or_refused(folder) -> str | None:
    message = read_or_refused(lambda: Progress.load(folder / "progress.npz"))
    if message is not None:
        assert message.startswith(f"{folder / 'progress.npz'}: ")
        assert "start over with --overwrite" in message
    return message


def test_a_small_progress_comes_back(tmp_path):
    small_progress().save(tmp_path / "progress.npz")
    assert_same(Progress.load(tmp_path / "progress.npz"), small_progress())
    resealed(tmp_path, stored(tmp_path))
    assert_same(Progress.load(tmp_path / "progress.npz"), small_progress())


@pytest.mark.parametrize("name", ["counts", "predictions", "done", "seconds", "trains/1"])
def test_a_changed_array_is_found(tmp_path, name):
    arrays = stored(tmp_path)
    arrays[name].reshape(-1).view(np.uint8)[0] ^= 1
    np.savez(tmp_path / "progress.npz", **arrays)
    assert "does not match the hash that it states: it has been changed" in loaded_or_refused(tmp_path)


def test_a_changed_counter_is_found(tmp_path):
    arrays = stored(tmp_path)
    facts = arrays["facts"].tobytes().replace(b'"syn_ops": 20', b'"syn_ops": 1000020')
    np.savez(tmp_path / "progress.npz", **arrays | {"facts": np.frombuffer(facts, np.uint8)})
    assert "does not match the hash that it states: it has been changed" in loaded_or_refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["counters"]["lif"].update(spikes=-1), "counters.lif.spikes"),
        (lambda facts: facts["counters"]["lif"].update(max_membrane=float("inf")), "counters.lif.max_membrane"),
        (lambda facts: facts["counters"]["lif"].update(more=1), "counters.lif.more"),
        (lambda facts: facts.update(bodies="2"), "bodies"),
        (lambda facts: facts.update(bodies=2**80), "bodies"),
        (lambda facts: facts.update(names=3), "names"),
        (lambda facts: facts.update(digests=[]), "0 digests of 3 clips"),
        (lambda facts: facts.update(shapes={"lif": [10**9, 10**9]}), "counts has uint8 of shape"),
        (lambda facts: facts["trains"].update({"0": facts["trains"].pop("1")}), "it has the arrays"),
        (lambda facts: facts.update(trains={"x": {}}), "trains"),
        (lambda facts: facts.update(identity=[]), "identity"),
        (lambda facts: facts["identity"].update(repeats=2), "repeats of a run of 2 are 1"),
        (lambda facts: facts["identity"].update(clips=4), "clips of a run of 4 are 3"),
        (lambda facts: facts.update(schema=["mksgn.progress/4"]), "schema is"),
        (lambda facts: facts.update(schema="mksgn.progress/3"), "schema is 'mksgn.progress/3', this version reads"),
    ],
)
def test_facts_of_other_types_and_sizes_are_refused(tmp_path, change, message):
    arrays = stored(tmp_path)
    facts = json.loads(arrays["facts"].tobytes())
    change(facts)
    resealed(tmp_path, arrays | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)})
    assert message in loaded_or_refused(tmp_path)


def test_facts_nested_without_end_are_refused(tmp_path):
    resealed(tmp_path, stored(tmp_path) | {"facts": np.frombuffer(b"[" * 200_000, np.uint8)})
    assert "damaged" in loaded_or_refused(tmp_path)


properties = damage_settings(100)


@properties
@given(st.data())
def test_any_edit_is_read_or_refused(tmp_path, data):
    arrays = stored(tmp_path)
    facts = data.draw(edited(json.loads(arrays["facts"].tobytes())))
    resealed(tmp_path, arrays | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)})
    loaded_or_refused(tmp_path)


@properties
@given(st.data())
def test_any_damage_is_refused(tmp_path, data):
    stored(tmp_path)
    content = (tmp_path / "progress.npz").read_bytes()
    (tmp_path / "progress.npz").write_bytes(data.draw(flipped(content) | rezipped(content)))
    loaded_or_refused(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_damaged_file_is_refused(parts, tmp_path, cut):
    progress = Progress({}, 11)
    progress.add(parts[0])
    progress.save(tmp_path / "progress.npz")
    data = (tmp_path / "progress.npz").read_bytes()
    (tmp_path / "progress.npz").write_bytes(data[:cut])
    with pytest.raises(BadInputError, match=r"progress\.npz: (is empty|cannot be read)"):
        Progress.load(tmp_path / "progress.npz")


def test_a_file_of_an_older_version_is_refused_in_one_line(tmp_path):
    """Version 1 held the bodies under the key "lanes"."""
    facts = {"schema": "mksgn.progress/1", "identity": {}, "lanes": 0}
    np.savez(tmp_path / "progress.npz", facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8))
    with pytest.raises(BadInputError) as error:
        Progress.load(tmp_path / "progress.npz")
    assert str(error.value) == (
        f"{tmp_path / 'progress.npz'}: schema is 'mksgn.progress/1', this version reads 'mksgn.progress/4'; "
        "start over with --overwrite, or in another folder (-o)"
    )


def test_what_differs_between_two_runs_is_named(tmp_path):
    check_same(tmp_path, {"a": 1, "b": [2]}, {"b": [2], "a": 1})
    with pytest.raises(BadInputError, match=r"begun with b \[2\], now \[3\]; give the same to --resume"):
        check_same(tmp_path, {"a": 1, "b": [2]}, {"a": 1, "b": [3]})
    with pytest.raises(BadInputError, match="begun with c 5, now null"):
        check_same(tmp_path, {"a": 1, "c": 5}, {"a": 1})
