"""Many runs: a grid of networks over one data set, spread over Dask's workers; results do not depend on how many there are.

    OUT/grid.json       what was asked for              OUT/networks/VARIANT.nir
    OUT/points/LABEL/   a run's folder for each point   OUT/progress/VARIANT.npz   only while its clips are unfinished
    OUT/sweep.json, sweep.md, pareto-MODEL.png          tables and fronts, when all points are there

A variant of a network is built once and run shard by shard. A shard is a task: a worker that dies costs the shard in hand, which
another one runs again. Sums are formed here, where each shard is counted once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed

from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.progress import Identity, Progress, check_same
from mksgn.bench.record import Record
from mksgn.bench.record_io import load, write_atomically
from mksgn.bench.run import LINE_EVERY_S, labels_of
from mksgn.bench.shards import Settings, Shard, shards, some
from mksgn.bench.sweep import tasks
from mksgn.bench.sweep.cluster import connected
from mksgn.bench.sweep.grid import Grid, Point, Variant
from mksgn.common.atomic import replacing
from mksgn.common.console import output, track
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import MANIFEST_FILE, environment
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.transforms import digest

GRID_FILE = "grid.json"
SAVE_EVERY_S = 5.0  # of each variant's progress


def sweep(
    grid: Grid,
    out: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    models: list[EnergyModel] | None = None,
) -> dict[str, Record]:
    """Every point's record, by label, in the grid's order; the folders are in `out`.

    `workers` processes on this machine (None: one per core), or those of the Dask scheduler at an address. Raises BadInputError for a
    grid that cannot be run, for a folder that holds another sweep, and for a task that kills every worker.
    """
    models = known_models() if models is None else models
    for name in grid.energy_models:
        model_named(name, models)
    clips = open_source(grid.data, split=grid.split, part="test", limit=grid.limit, seed=grid.seed)
    checkpoints = {label: _read(Path(path)) for label, path in grid.axes.model.items()}
    if not len(clips):
        raise BadInputError(f"{grid.data}: no clip")
    asked = {
        **grid.model_dump(mode="json", by_alias=True, exclude={"axes": {"model"}, "energy_models": True}),
        "models": {label: sha256(Path(path)) for label, path in grid.axes.model.items()},
        **labels_of(clips),
        "joints": [digest(clips.clips[index]).hex() for index in (0, -1)],
        "environment": environment(),
    }
    _begin(out, asked, resume)
    left = {v.label: (v, points) for v, points in _by_variant(grid) if any(not _there(out, p) for p in points)}
    if left:
        with connected(workers, scheduler) as client:
            _check_versions(client, asked["environment"])
            _Runner(grid, out, client, clips, models, asked).run(left, checkpoints)
    return {point.label: load(out / "points" / point.label) for point in grid.points()}


class _Runner:
    """The client's side: hands out tasks, adds up what comes back, and writes it down."""

    def __init__(
        self, grid: Grid, out: Path, client: Client, clips: ClipSet, models: list[EnergyModel], asked: Identity
    ):
        self.grid, self.out, self.client, self.clips, self.models = grid, out, client, clips, models
        self.asked = asked
        self.settings = Settings("emulator", "fixed", compare=grid.compare)
        self.facts = client.submit(tasks.given, tasks.Facts.of(clips, grid.seed), pure=False)
        self.shards: dict[range, Future] = {}
        self.progress: dict[str, Progress] = {}
        self.saved: dict[str, float] = {}
        self.networks: dict[str, Future] = {}
        self.urgency: dict[str, int] = {}  # one variant after the other: workers keep few networks compiled
        self.waiting: dict[Future, tuple[str, Any]] = {}  # what a task is for: its kind, and which

    def run(self, left: dict[str, tuple[Variant, list[Point]]], checkpoints: dict[str, bytes]) -> None:
        self.left = left
        calibration = open_source(
            self.grid.data, split=self.grid.split, part="train", limit=self.grid.calibration, seed=self.grid.seed
        )
        samples = self.client.submit(tasks.given, some(calibration, range(len(calibration))), pure=False)
        files = {label: self.client.submit(tasks.given, data, pure=False) for label, data in checkpoints.items()}
        begun: list[Future] = []
        for number, (label, (variant, _)) in enumerate(left.items()):
            self.urgency[label] = -number
            begun += self._begin(label, variant, files[variant.model], samples)
        try:
            self._collect(begun)
        finally:
            for label, progress in self.progress.items():
                if progress.done.any() and not progress.complete:
                    progress.save(self._progress_file(label))

    def _begin(self, label: str, variant: Variant, model: Future, samples: Future) -> list[Future]:
        """Tasks of a variant: its network, and the shards that are not done yet."""
        network, tasks_of = self._network_file(label), []
        if network.is_file():
            self.networks[label] = self.client.submit(tasks.given, network.read_bytes(), pure=False)
        else:
            self.networks[label] = self._submit(label, tasks.build, variant, model, samples)
            tasks_of.append(self._await("network", label, self.networks[label]))
        path, identity = self._progress_file(label), {**self.asked, "variant": label}
        progress = Progress(identity, len(self.clips))
        if network.is_file() and path.is_file():
            progress = Progress.load(path)
            check_same(path, progress.identity, json.loads(json.dumps(identity)))
        self.progress[label], self.saved[label] = progress, time.monotonic()
        for which in shards(~progress.done, self.grid.shard):
            if which not in self.shards:
                self.shards[which] = self.client.submit(tasks.given, some(self.clips, which), pure=False)
            done = self._submit(
                label, tasks.execute, self.networks[label], self.shards[which], which.start, self.settings
            )
            tasks_of.append(self._await("shard", (label, which), done))
        return tasks_of + (self._finish(label) if progress.complete else [])

    def _finish(self, label: str) -> list[Future]:
        given = (self.networks[label], self.facts, self.settings, self.progress[label])
        return [
            self._await("point", point, self._submit(label, tasks.finish, *given, point.chip, self.models))
            for point in self.left[label][1]
            if not _there(self.out, point)
        ]

    def _submit(self, label: str, function: Callable[..., Any], *arguments: Any) -> Future:
        return self.client.submit(function, *arguments, pure=False, priority=self.urgency[label])

    def _await(self, kind: str, which: Any, future: Future) -> Future:
        self.waiting[future] = (kind, which)
        return future

    def _collect(self, begun: list[Future]) -> None:
        queue = as_completed(begun)
        begun.clear()  # a result that nobody holds any more is let go by its worker
        total = sum(int((~progress.done).sum()) for progress in self.progress.values())
        output.print(f"{len(self.left)} networks, {total:,} clips to run on {len(self.client.nthreads())} workers")
        said, done = time.monotonic(), 0
        for future in track(queue, total, "clips", self._size):
            kind, which = self.waiting.pop(future)
            result = _result(future, which)
            if kind == "network":
                self._network_file(which).parent.mkdir(parents=True, exist_ok=True)
                with replacing(self._network_file(which)) as temporary:
                    temporary.write_bytes(result)
            elif kind == "shard":
                label = which[0]
                done += len(which[1])
                self._add(label, result)
                if self.progress[label].complete:
                    for task in self._finish(label):
                        queue.add(task)
            else:
                self._write(which, result)
            if not sys.stdout.isatty() and time.monotonic() - said > LINE_EVERY_S:
                said = time.monotonic()
                output.print(f"{done:,} of {total:,} clips")

    def _size(self, future: Future) -> int:
        kind, which = self.waiting.get(future, ("", None))
        return len(which[1]) if kind == "shard" else 0

    def _add(self, label: str, shard: Shard) -> None:
        progress = self.progress[label]
        progress.add(shard)
        if progress.complete or time.monotonic() - self.saved[label] > SAVE_EVERY_S:
            self._progress_file(label).parent.mkdir(parents=True, exist_ok=True)
            progress.save(self._progress_file(label))
            self.saved[label] = time.monotonic()

    def _write(self, point: Point, written: dict[str, bytes]) -> None:
        """The point's folder, whole or not at all."""
        folder = self.out / "points" / point.label
        draft = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in written.items():
            (draft / name).write_bytes(data)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
        label = point.variant.label
        if all(_there(self.out, each) for each in self.left[label][1]):
            self._progress_file(label).unlink(missing_ok=True)
            self.progress.pop(label)
            self.networks.pop(label)

    def _network_file(self, label: str) -> Path:
        return self.out / "networks" / f"{label}.nir"

    def _progress_file(self, label: str) -> Path:
        return self.out / "progress" / f"{label}.npz"


def _by_variant(grid: Grid) -> Iterator[tuple[Variant, list[Point]]]:
    for variant in grid.variants():
        yield variant, [Point(variant=variant, chip=chip) for chip in grid.axes.chip]


def _there(out: Path, point: Point) -> bool:
    return (out / "points" / point.label / MANIFEST_FILE).is_file()


def _check_versions(client: Client, wanted: dict[str, str]) -> None:
    """Of the workers that are there: their figures go into the same records. Raises BadInputError that names what differs."""
    for worker, found in client.run(environment).items():
        for tool in {**wanted, **found}:
            if found.get(tool) != wanted.get(tool):
                raise BadInputError(
                    f"worker {worker}: {tool} {found.get(tool, 'is missing')}, here {wanted.get(tool, 'it is missing')}; install the same "
                    "versions on all workers"
                )


def _begin(out: Path, asked: dict[str, Any], resume: bool) -> None:
    path = out / GRID_FILE
    if path.is_file():
        if not resume:
            raise BadInputError(f"{out}: holds a sweep already; go on with --resume, or choose another folder with -o")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInputError(f"{path}: damaged ({error}); start anew in another folder (-o)") from error
        check_same(out, found, json.loads(json.dumps(asked)))
        return
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asked, indent=2) + "\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}; name a model.pt that mksgn-train wrote") from error


def _result(future: Future, which: Any) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        raise BadInputError(
            f"{which}: worker after worker died over this task; give each more memory, by fewer --workers or a smaller shard"
        ) from error
