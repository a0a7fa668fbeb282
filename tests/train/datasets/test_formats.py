"""One recording by three ways: raw .skeleton, CTR-GCN's npz, pyskl's pickle; the network must not
be able to tell which."""

import pickle
import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train import cli
from mksgn.train.config import TrainConfig
from mksgn.train.datasets import open_source
from mksgn.train.datasets.clips import LazyClips
from mksgn.train.loop import train
from mksgn.train.streams import StreamNormaliser
from tests.support.skeleton_files import write_skeleton

SCHEMES = ("ntu", "ctrgcn", "pyskl")
CONFIG = TrainConfig(
    student={"frames": 4, "stream_channels": 2, "widths": [4, 8], "heads": 2, "kernel": 3}, epochs=2, batch=4
)
TRAIN_SUBJECT, TEST_SUBJECT = 2, 3  # of xsub
ROWS = 300  # frames of CTR-GCN's rows


@dataclass(frozen=True)
class Scene:
    """Who is seen when, and by which id: per id the frames (numbers in the file) and the amount of
    motion, the largest first."""

    frames: int
    bodies: tuple[tuple[tuple[int, ...], float], ...]
    noise: tuple[int, ...] = ()  # frames of a body that each preparation throws out
    actors: tuple[int, ...] = (0, 1)  # which of the bodies is which person


def span(first, last, *without):
    return tuple(frame for frame in range(first, last + 1) if frame not in without)


SCENES = {
    "one": Scene(9, ((span(0, 8), 0.3),)),
    "one in a single frame": Scene(1, (((0,), 0.3),)),
    "one, and frames without anybody": Scene(17, ((span(2, 14, 5, 6, 10), 0.3),)),
    "two": Scene(14, ((span(0, 13), 0.4), (span(0, 13), 0.1))),
    "the second comes later": Scene(24, ((span(0, 23), 0.4), (span(7, 23), 0.1))),
    "the second comes later and leaves": Scene(30, ((span(0, 29), 0.4), (span(5, 20), 0.1))),
    "the first leaves": Scene(26, ((span(0, 15), 0.4), (span(0, 25), 0.1))),
    "two, and frames without anybody": Scene(30, ((span(1, 28, 3, 17, 18), 0.4), (span(12, 28, 17, 18), 0.1))),
    "one beside noise": Scene(20, ((span(0, 19), 0.2),), noise=span(4, 9)),
    "one, lost, found by another id, and noise": Scene(
        34, ((span(0, 14), 0.4), (span(19, 33), 0.1)), noise=span(15, 18), actors=(0, 0)
    ),
    "two beside noise": Scene(40, ((span(3, 39, 20), 0.4), (span(9, 30, 20), 0.1)), noise=span(1, 11)),
}


def exact(values):
    """To multiples of 2**-10: those below 2 are float16's own, and their sums and differences
    float32's."""
    return (np.round(np.asarray(values) * 1024) / 1024).astype(np.float32)


def body(rng, frames, amount, place):
    """(frames, 25, 3) float32, of one figure 1.1 m tall and 0.3 m wide, which wanders by `amount`:
    the more, the more motion."""
    rest = np.random.default_rng(0).uniform(-0.5, 0.5, size=(25, 3)) * (0.3, 1.1, 0.2)
    rest[:2] = ((-0.15, -0.55, 0), (0.15, 0.55, 0))
    way = amount * np.sin(np.linspace(0, 3, frames))[:, None] * np.array([0.5, 0.2, 0.6])
    joints = exact(rest + way[:, None] + 0.01 * rng.normal(size=(frames, 25, 3)) + np.array(place))
    assert np.abs(joints).max() < 2
    assert np.array_equal(joints.astype(np.float16), joints)
    return joints


class Recording:
    """A scene as the sensor gave it, and as either preparation stores it."""

    def __init__(self, scene, subject, action, seed):
        self.name = f"S001C002P{subject:03d}R001A{action:03d}"
        self.label = action - 1
        rng = np.random.default_rng(seed)
        tracks = [
            (frames, body(rng, len(frames), amount, (0.6 * b - 0.4, -0.3, 1.2)))
            for b, (frames, amount) in enumerate(scene.bodies)
        ]
        noise = [(scene.noise, body(rng, len(scene.noise), 0.5, (1.2, 0.2, 0.5)))] if scene.noise else []
        self.frames = [[] for _ in range(scene.frames)]
        for identity, (frames, joints) in zip((91, 17, 44), [*noise, *tracks], strict=False):  # the noise comes first
            for frame, pose in zip(frames, joints, strict=True):
                self.frames[frame].append((identity, pose))
        counted = [frame for frame, bodies in enumerate(self.frames) if bodies]
        full = np.zeros((len(tracks), len(counted), 25, 3), np.float32)
        for actor, (frames, joints) in zip(scene.actors, tracks, strict=False):
            full[actor, [counted.index(frame) for frame in frames]] = joints
        seen = np.flatnonzero(full.any(axis=(0, 2, 3)))
        self.actors = full[full.any(axis=(1, 2, 3))][:, seen]
        self.pyskl_actors = (
            full[:, seen[0] : seen[-1] + 1] if len(full) > 1 else self.actors
        )  # nobody in the middle stays

    def row(self):
        """CTR-GCN's: centred where somebody is, two bodies side by side, zeros to 300 frames."""
        there = self.actors.any(axis=(2, 3))
        centred = self.actors - self.actors[0, there[0].argmax(), 1]
        centred[~there] = 0
        row = np.zeros((ROWS, 2, 25, 3), np.float32)
        row[: centred.shape[1], : len(centred)] = centred.transpose(1, 0, 2, 3)
        return row.reshape(ROWS, 150)

    def annotation(self):
        """pyskl's: the sensor's coordinates in half precision."""
        return {
            "frame_dir": self.name,
            "label": self.label,
            "keypoint": self.pyskl_actors.astype(np.float16),
            "total_frames": self.pyskl_actors.shape[1],
        }


def write(folder, recordings):
    """The three formats of recordings by part; gives SOURCE by scheme. Rows are in the order of
    names, as CTR-GCN's are."""
    raw = folder / "raw"
    arrays, split = {}, {}
    for part, word in (("train", "train"), ("test", "val")):
        own = sorted(recordings[part], key=lambda recording: recording.name)
        for recording in own:
            write_skeleton(raw / "nturgb+d_skeletons" / f"{recording.name}.skeleton", recording.frames, "\r\n")
        arrays[f"x_{part}"] = np.stack([recording.row() for recording in own])
        arrays[f"y_{part}"] = np.eye(60)[[recording.label for recording in own]]
        split[f"xsub_{word}"] = [recording.name for recording in own]
    np.savez(folder / "NTU60_CS.npz", **arrays)
    annotations = [recording.annotation() for part in ("test", "train") for recording in recordings[part]]
    with open(folder / "ntu60_3danno.pkl", "wb") as file:
        pickle.dump({"split": split, "annotations": annotations}, file, protocol=2)
    return {
        "ntu": f"ntu:{raw}",
        "ctrgcn": f"ctrgcn:{folder / 'NTU60_CS.npz'}",
        "pyskl": f"pyskl:{folder / 'ntu60_3danno.pkl'}",
    }


@pytest.fixture(scope="module")
def recordings():
    """Each scene once in either part, of an action of its own."""
    return {
        part: [Recording(scene, subject, 3 * n + 1, [n, subject]) for n, scene in enumerate(SCENES.values())]
        for part, subject in (("train", TRAIN_SUBJECT), ("test", TEST_SUBJECT))
    }


@pytest.fixture(scope="module")
def sources(recordings, tmp_path_factory):
    return write(tmp_path_factory.mktemp("formats"), recordings)


@pytest.fixture(scope="module")
def sets(sources):
    return {
        (scheme, part): open_source(source, split="xsub", part=part)
        for scheme, source in sources.items()
        for part in ("train", "test")
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in one order only, so that equal means bitwise equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# one recording, three files


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("scene", SCENES)
def test_three_formats_of_one_recording_are_the_same_streams(sets, recordings, scene, part):
    normaliser = StreamNormaliser.fit(sets["ntu", "train"].clips, 16)
    number = list(SCENES).index(scene)
    recording = recordings[part][number]
    found = {scheme: sets[scheme, part].clips[number] for scheme in SCHEMES}
    raw = found["ntu"]
    assert raw.joints.shape == recording.actors.shape  # denoised as the test's author did by hand
    bodies = normaliser.clip(raw)
    assert len(bodies) == len({*SCENES[scene].actors[: len(SCENES[scene].bodies)]})
    assert all(len(np.unique(body[:3])) > 20 for body in bodies)  # bodies, not zeros or one point
    assert len(bodies) == 1 or not np.array_equal(bodies[0], bodies[1])
    for scheme, clip in found.items():
        assert clip.label == recording.label, scheme
        assert np.array_equal(clip.joints, raw.joints), scheme
        assert np.array_equal(normaliser.clip(clip), bodies), scheme
    assert {found[scheme].name for scheme in ("ntu", "pyskl")} == {recording.name}
    assert {(found[scheme].subject, found[scheme].view) for scheme in ("ntu", "pyskl")} == {
        (TRAIN_SUBJECT if part == "train" else TEST_SUBJECT, 2)
    }


@pytest.mark.parametrize("part", ["train", "test"])
def test_three_formats_are_one_set(sets, part):
    ntu, *others = (sets[scheme, part] for scheme in SCHEMES)
    assert len(ntu) == len(SCENES)
    for other in others:
        assert (other.graph, other.classes, other.split, other.part) == (ntu.graph, ntu.classes, "xsub", part)
        np.testing.assert_array_equal(other.labels, ntu.labels)
        assert not other.validation
        assert isinstance(other.clips, LazyClips)


@pytest.mark.parametrize("streams", [("joint", "bone", "joint_motion", "bone_motion"), ("bone",)])
def test_normalisers_fitted_on_three_formats_are_equal(sets, streams):
    fitted = [StreamNormaliser.fit(sets[scheme, "train"].clips, 16, streams) for scheme in SCHEMES]
    assert fitted[0] == fitted[1] == fitted[2]


@pytest.mark.parametrize("limit", [1, 3, 7, 11])
def test_a_limit_takes_the_same_clips_of_three_formats(sources, limit):
    some = [open_source(source, split="xsub", part="test", limit=limit) for source in sources.values()]
    for other in some:
        assert len(other) == limit
        np.testing.assert_array_equal(other.labels, some[0].labels)
        assert [clip.joints.shape for clip in other.clips] == [clip.joints.shape for clip in some[0].clips]


def test_pyskl_lists_two_bodies_the_other_way_where_the_first_comes_later(tmp_path):
    """Its script turns them round, so that a body 1 is there at once; the origin is then that
    one's. The reader leaves it so."""
    scene = Scene(24, ((span(6, 23), 0.4), (span(0, 23), 0.1)))
    recordings = {"train": [Recording(scene, TRAIN_SUBJECT, 1, 0)], "test": [Recording(scene, TEST_SUBJECT, 1, 1)]}
    for recording in recordings["test"]:
        recording.pyskl_actors = recording.actors[::-1]
    clips = {scheme: open_source(source).clips[0] for scheme, source in write(tmp_path, recordings).items()}
    raw, turned = clips["ntu"].joints, clips["pyskl"].joints
    assert np.array_equal(clips["ctrgcn"].joints, raw)
    assert not raw[0, :6].any()
    expected = raw[::-1] - raw[1, 0, 1]
    expected[1, :6] = 0
    assert np.array_equal(turned, expected)


# what is done with them


@pytest.mark.slow
def test_trainings_on_three_formats_end_in_the_same_weights(sets, tmp_path):
    models = [
        train(CONFIG, sets[scheme, "train"], sets[scheme, "test"], tmp_path / scheme, seed=1) for scheme in SCHEMES
    ]
    first = models[0].student.state_dict()
    for scheme, model in zip(SCHEMES, models, strict=True):
        assert {name: model.training[name] for name in ("source", "split", "clips", "held_out_clips", "epochs")} == {
            "source": scheme, "split": "xsub", "clips": len(SCENES), "held_out_clips": len(SCENES), "epochs": 2,
        }  # fmt: skip
        assert model.training["held_out_top1"] == models[0].training["held_out_top1"]
        state = model.student.state_dict()
        assert [name for name in state if not torch.equal(state[name], first[name])] == []
    other = train(CONFIG, sets["ctrgcn", "train"], sets["ctrgcn", "test"], tmp_path / "other", seed=2).student
    assert not torch.equal(other.fc.weight, first["fc.weight"])


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """mksgn-train in an empty folder; gives exit code, stdout with its lines joined, and stderr."""
    monkeypatch.chdir(tmp_path)
    tiny = "student: {frames: 4, stream_channels: 2, widths: [4], heads: 2, kernel: 3}\nepochs: 1\nbatch: 8\n"
    (tmp_path / "tiny.yaml").write_text(tiny)

    def with_arguments(*arguments):
        monkeypatch.setattr(sys, "argv", ["mksgn-train", "tiny.yaml", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, " ".join(out.split()), err

    return with_arguments


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command_trains_and_prints_each_note_once(run, sources, sets, tmp_path, scheme):
    code, out, err = run("--data", sources[scheme], "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert f"training custom on {len(SCENES)} clips of {scheme}, 60 classes" in out
    notes = {*sets[scheme, "train"].notes, *sets[scheme, "test"].notes}
    assert len(notes) == (3 if scheme == "pyskl" else 2)  # its warning is the same of both parts
    assert out.count("note: ") == len(notes)
    for note in notes:
        assert out.count(f"note: {note} ") == 1
    for part, published in (("train", "40,091"), ("test", "16,487")):
        assert f"note: split xsub, {part}: {len(SCENES)} clips, published {published}" in out
    assert (tmp_path / "out" / "model.pt").is_file()


def test_files_left_out_are_noted_before_the_training_begins(run, recordings, tmp_path):
    folder = tmp_path / "clips"
    for part in ("train", "test"):
        for recording in recordings[part][:3]:
            write_skeleton(folder / f"{recording.name}.skeleton", recording.frames)
    cut = folder / f"S001C003P{TEST_SUBJECT:03d}R001A001.skeleton"
    cut.write_bytes((folder / f"{recordings['test'][0].name}.skeleton").read_bytes()[:-500])
    (folder / "notes.skeleton").write_text("")
    code, out, err = run("--data", f"ntu:{folder}", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert f"note: 1 file skipped as truncated or malformed: {cut.stem} " in out
    assert out.count("note: 1 file skipped for a name that is not a clip's: notes") == 1
    assert out.index("note: 1 file skipped as") < out.index("epoch 1/1")


def test_a_clip_that_cannot_be_read_later_ends_the_command_in_one_line(run, recordings, tmp_path):
    """Lazy clips are read only when the training has begun."""
    recording = Recording(SCENES["one"], TRAIN_SUBJECT, 1, 0)
    for actors in (recording.actors, recording.pyskl_actors):
        actors[:] = 0
    broken = {"train": [*recordings["train"][1:4], recording], "test": recordings["test"][:2]}
    (tmp_path / "broken").mkdir()
    sources = write(tmp_path / "broken", broken)
    for scheme, name in (("ctrgcn", r"x_train\[0\]"), ("pyskl", recording.name)):
        code, _, err = run("--data", sources[scheme], "--out", tmp_path / scheme)
        assert (code, err.count("\n")) == (2, 1)
        assert re.search(f"^mksgn-train: .*{name} is zero in all", err)
        assert not (tmp_path / scheme / "model.pt").exists()


# what each scheme refuses


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("ntu", {}, r"^source 'ntu' must have the form ntu:PATH$"),
        ("ntu:", {}, r"^source 'ntu:' must have the form ntu:PATH$"),
        ("NTU:raw", {},
         "unknown source 'NTU:raw': use one of synthetic, nw-ucla:PATH, ntu:PATH, ctrgcn:FILE.npz, pyskl:FILE.pkl"),
        ("ctrgcn", {}, "must have the form ctrgcn:FILE.npz"),
        ("ctrgcn:", {}, "must have the form ctrgcn:FILE.npz"),
        ("pyskl", {}, "must have the form pyskl:FILE.pkl"),
        ("pyskl:", {}, "must have the form pyskl:FILE.pkl"),
        (":NTU60_CS.npz", {}, "unknown source ':NTU60_CS.npz'"),
        ("NTU60_CS.npz", {}, "unknown source 'NTU60_CS.npz'"),
        ("ntu:x", {"split": "cs"},
         "ntu has no split 'cs': use one of xsub, xview, xsub-val, xsub120, xset, xsub120-val$"),
        ("ctrgcn:x", {"split": "CS"}, "ctrgcn has no split 'CS': use one of xsub, xview, xsub120, xset$"),
        ("ctrgcn:x", {"split": "xsub-val"}, "ctrgcn has no split 'xsub-val'"),
        ("pyskl:x", {"split": "xsub_val"}, "pyskl has no split 'xsub_val': use one of xsub, xview, xsub120, xset$"),
        ("ntu:x", {"part": "val"}, "ntu has no part 'val': use train or test"),
        ("ctrgcn:x", {"part": "valid"}, "ctrgcn has no part 'valid': use train or test"),
        ("pyskl:x", {"part": ""}, "pyskl has no part '': use train or test"),
        ("ntu:x", {"limit": 0}, "limit 0 leaves no clip: it must be at least 1"),
        ("ctrgcn:x", {"limit": -2}, "limit -2 leaves no clip"),
        ("pyskl:x", {"limit": 0}, "limit 0 leaves no clip"),
        ("ntu:x", {}, "^x is not a folder: .*nturgbd_skeletons_s001_to_s017.zip"),
        ("ctrgcn:x", {}, "^x: no such file; .*ctrgcn:PATH must be an .npz as CTR-GCN writes it"),
        ("pyskl:x", {}, "^x: no such file; .*ntu60_3danno.pkl"),
    ],
)  # fmt: skip
def test_open_source_refuses_what_does_not_exist(tmp_path, monkeypatch, source, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=message) as caught:
        open_source(source, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "of", "message"),
    [
        ("ntu", "ctrgcn", "is not a folder"),
        ("ntu", "pyskl", "is not a folder"),
        ("ctrgcn", "ntu", "is a directory"),
        ("ctrgcn", "pyskl", "not an .npz"),
        ("pyskl", "ntu", "is a directory"),
        ("pyskl", "ctrgcn", "not a pickle of plain containers and arrays of numbers"),
        ("nw-ucla", "ntu", "holds no clip"),
    ],
)
def test_another_format_is_refused_by_each_reader(sources, scheme, of, message):
    path = sources[of].partition(":")[2]
    with pytest.raises(BadInputError, match=f"^{re.escape(path)}:? {message}"):
        open_source(f"{scheme}:{path}", part="train")


@pytest.mark.parametrize(
    ("scheme", "split", "message"),
    [
        ("ctrgcn", "xview", "holds split xsub by its name, not xview"),
        ("ctrgcn", "xset", "holds split xsub by its name, not xset"),
        ("pyskl", "xview", "no list of names xview_val"),
        ("pyskl", "xset", "use --split xsub or xview"),
        ("ntu", "xview", "none of 22 files can be used for the test part of split xview .camera 1"),
    ],
)
def test_a_split_that_the_data_do_not_have_is_refused(sources, scheme, split, message):
    with pytest.raises(BadInputError, match=message):
        open_source(sources[scheme], split=split)


def test_a_colon_in_the_path_belongs_to_the_path(recordings, tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    for source in write(folder, {part: some[:2] for part, some in recordings.items()}).values():
        assert len(open_source(source, part="train")) == 2


def test_no_two_scenes_are_alike(sets):
    """A guard of the tests above: a mix-up of clips or parts would be seen."""
    clips = [clip for part in ("train", "test") for clip in sets["ctrgcn", part].clips]
    assert len({(clip.joints.shape, clip.joints.tobytes()) for clip in clips}) == 2 * len(SCENES)
