"""The folder of a real run, for tests of check and compare: a tiny student, exported, quantised and emulated."""

from pathlib import Path

from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from tests.support.students import calibration, tiny

CLIPS = 6


def make_run(folder: Path, *, seed: int = 0, clips: int = CLIPS) -> Path:
    """model.pt and model.nir in `folder`, and a run of `clips` synthetic clips in `folder`/run, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    trained, _ = tiny(seed=seed, widths=(8,))
    checkpoint.save(trained, folder / "model.pt")
    stored = checkpoint.load(folder / "model.pt")
    graph = export_to_nir(folder / "model.pt", quantize=8, calibration=calibration(stored, 4))
    files.write(graph, folder / "model.nir")
    return run_again(folder / "model.nir", folder / "run", clips=clips)


def run_again(model: Path, out: Path, *, clips: int = CLIPS, seed: int = 0) -> Path:
    source = open_source("synthetic", part="test", limit=clips, seed=seed)
    bench(model, source, out, Settings(compare=0), seed=seed)
    return out
