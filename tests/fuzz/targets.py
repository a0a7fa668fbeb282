"""Every reader of files, with small valid files to begin from."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nir
import numpy as np

from mksgn.bench import claims, energy_models, record_io, timing_models
from mksgn.bench.check.counts import read_arrays
from mksgn.bench.chip_counts import counts
from mksgn.bench.manifest import load_manifest
from mksgn.bench.progress import Progress
from mksgn.bench.sweep import grid
from mksgn.deploy import arrays, compile_graph, nir_data, run_folder
from mksgn.deploy.placement import chips
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.export.lava_dl import hdf5
from mksgn.train import checkpoint, config
from mksgn.train.datasets import ctrgcn_npz, ntu_skeleton, nw_ucla, pyskl_pkl, utd_mhad
from mksgn.train.datasets.arrays import open_arrays
from tests.support import lava_dl_files, records, students
from tests.support.paths import DATA, EXAMPLES, ROOT
from tests.support.skeleton_files import write_skeleton

OWN_CHIP = EXAMPLES / "own_chip"


@dataclass(frozen=True)
class Target:
    """A reader of one file.

    Attributes:
        name: What to call it.
        file: Name of the file, which some readers look at.
        read: Reads the file; raises nothing but the package's own errors.
        seeds: Makes contents of valid files in an empty folder.
    """

    name: str
    file: str
    read: Callable[[Path], Any]
    seeds: Callable[[Path], Iterable[bytes]]

    def contents(self) -> list[bytes]:
        with TemporaryDirectory() as folder:
            return list(self.seeds(Path(folder)))


def _files(*paths: Path) -> Callable[[Path], Iterable[bytes]]:
    return lambda folder: [path.read_bytes() for path in paths]


def _made(write: Callable[[Path], object], name: str = "made") -> Callable[[Path], Iterable[bytes]]:
    """The content that `write` puts at a path."""

    def seeds(folder: Path) -> Iterable[bytes]:
        path = folder / name
        write(path)
        yield path.read_bytes()

    return seeds


def _graphs(folder: Path) -> Iterable[bytes]:
    for path in (DATA / "nir_0.1.0_image.nir", DATA / "nir_1.0.6_nested.nir", DATA / "nir_1.0.6_recurrent.nir"):
        yield path.read_bytes()
    trained, inputs = students.tiny(frames=4, stream_channels=2, widths=(2,))
    for quantize in (None, 8):
        files.write(export_to_nir(trained, quantize=quantize, calibration=inputs), folder / "student.nir")
        yield (folder / "student.nir").read_bytes()


def _read_graph(path: Path) -> None:
    """Read a graph and compile it, as each command does first."""
    compile_graph(files.read(path), precision="float", steps=2)


def _recordings(folder: Path) -> Iterable[bytes]:
    gridded = nir.TimeGriddedData(np.eye(4, dtype=bool)[None], 1e-4)
    events = nir.EventData(np.array([[0, 1, -1]]), np.array([[0.0, 2e-4, 1.0]]), 2, 4e-4)
    for values in (gridded, events):
        path = folder / "recording.h5"
        nir.write_data(str(path), nir.NIRGraphData({"a": nir.NIRNodeData({"spikes": values})}))
        yield path.read_bytes()


def _layers(path: Path) -> None:
    rng = np.random.default_rng(0)
    lava_dl_files.write(
        path, [lava_dl_files.inp(1, 4, 4), lava_dl_files.conv(lava_dl_files.weights(rng, 2, 1, 3, 3), (4, 4))]
    )


def _model(path: Path) -> None:
    checkpoint.save(students.tiny(frames=4, stream_channels=2, widths=(2,))[0], path)


def _archives(**arrays: np.ndarray) -> Callable[[Path], Iterable[bytes]]:
    def seeds(folder: Path) -> Iterable[bytes]:
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)
            yield file.getvalue()

    return seeds


SAMPLES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def _array(folder: Path) -> Iterable[bytes]:
    file = io.BytesIO()
    np.save(file, SAMPLES)
    yield file.getvalue()


def _ctrgcn(path: Path) -> None:
    x, y = np.ones((2, 4, 150), np.float32), np.eye(60)[:2]
    with open(path, "wb") as file:
        np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)


def _pyskl(path: Path) -> None:
    name = "S001C001P001R001A001"
    clip = {"frame_dir": name, "label": 0, "keypoint": np.ones((1, 4, 25, 3), np.float16), "total_frames": 4}
    path.write_bytes(pickle.dumps({"split": {"xsub_train": [name], "xsub_val": []}, "annotations": [clip]}, 2))


def _utd(path: Path) -> None:
    from scipy import io as scipy_io

    scipy_io.savemat(path, {"d_skel": np.random.default_rng(0).normal(size=(20, 3, 4))}, appendmat=False)


def _clip(path: Path) -> None:
    joints = np.random.default_rng(0).normal(size=(3, 20, 3)).round(3).tolist()
    path.write_text(json.dumps({"file_name": "a01_s01_e00_v01", "skeletons": joints, "label": 1}))


def _spikes(path: Path) -> None:
    bits = np.packbits(np.eye(4, dtype=bool).ravel(), bitorder="little")
    with open(path, "wb") as file:
        np.savez_compressed(
            file, **{"counts/a": np.ones(4, np.int64), "trains/a": bits, "shape/a": np.array([1, 4, 4])}
        )


def _read_spikes(path: Path) -> None:
    nir_data.of_folder(path.parent)
    read_arrays(path)


def _progress(path: Path) -> None:
    Progress({"model": "a" * 64}, 4, 1).save(path)


def _manifest(path: Path) -> None:
    (path.parent / "run.json").write_text("{}")
    program = compile_graph(files.read(DATA / "nir_1.0.6_line.nir"), precision="float", steps=2)
    run_folder.write_manifest(
        path.parent,
        ["run.json"],
        model="model.nir",
        parents=[],
        program=program,
        facts={"run": {}, "data": {"source": "synthetic", "clips": ["a"]}, "execution": {}, "predictions": [0]},
        model_sha256="a" * 64,
    )


def _record(path: Path) -> None:
    path.write_text(json.dumps(records.small_run()))


def _ntu(path: Path) -> None:
    write_skeleton(path, [[(1, np.ones((25, 3)))]] * 2)


def _timing(folder: Path) -> Iterable[bytes]:
    yield _data("bench", "timing_models.yaml").read_bytes().replace(b"name: ", b"name: my-")


def _data(stage: str, name: str) -> Path:
    return ROOT / "mksgn" / stage / "data" / name


TARGETS = {
    target.name: target
    for target in (
        Target("nir", "model.nir", _read_graph, _graphs),
        Target("lava-dl", "network.net", hdf5.load, _made(_layers)),
        Target("recording", "recording.h5", lambda path: nir_data.read(path, 1e-4), _recordings),
        Target("model", "model.pt", checkpoint.load_either, _made(_model)),
        Target("npz", "x.npz", arrays.load, _archives(x=SAMPLES)),
        Target("npy", "x.npy", arrays.load, _array),
        Target("samples", "x.npz", lambda path: open_arrays(f"npz:{path}").sha256, _archives(x=SAMPLES, y=np.array([0, 1]))),
        Target("nw-ucla", "a01_s01_e00_v01.json", nw_ucla.read_clip, _made(_clip)),
        Target("ntu", "S001C001P001R001A001.skeleton", ntu_skeleton.read_clip, _made(_ntu)),
        Target("ctrgcn", "NTU60_CS.npz", lambda path: ctrgcn_npz.read(path, None, "test"), _made(_ctrgcn)),
        Target("pyskl", "ntu60_3danno.pkl", lambda path: pyskl_pkl.read(path, "xsub", "train"), _made(_pyskl)),
        Target("utd-mhad", "a1_s1_t1_skeleton.mat", utd_mhad.read_clip, _made(_utd)),
        Target("config", "config.yaml", lambda path: config.load(str(path)), _files(_data("train", "presets/small.yaml"))),
        Target("energy-models", "e.yaml", lambda path: energy_models.known_models([path]), _files(OWN_CHIP / "energy_models.yaml")),
        Target("timing-models", "timing.yaml", lambda path: timing_models.known_timing_models([path]), _timing),
        Target("claims", "claims.yaml", lambda path: claims.published_claims([path]), _files(OWN_CHIP / "claims.yaml")),
        Target("chips", "chip.yaml", lambda path: chips.known_chips([path]), _files(OWN_CHIP / "chip.yaml")),
        Target("counts", "counts.yaml", counts.read, _files(OWN_CHIP / "counts.yaml")),
        Target("grid", "grid.yaml", grid.read, _files(EXAMPLES / "grid.yaml")),
        Target("record", "run.json", record_io.load, _made(_record)),
        Target("manifest", "manifest.json", lambda path: load_manifest(path.parent), _made(_manifest, "manifest.json")),
        Target("progress", "progress.npz", Progress.load, _made(_progress)),
        Target("spikes", "spikes.npz", _read_spikes, _made(_spikes)),
    )
}  # fmt: skip
