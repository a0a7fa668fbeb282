"""Run a grid of networks over one data set on Dask's workers. Results do not depend on the number of workers.

    OUT/grid.json       the request                     OUT/networks/VARIANT.nir
    OUT/points/LABEL/   a run's folder for each point, with its report   OUT/progress/VARIANT.npz   while its clips are unfinished
    OUT/sweep.json, sweep.md, pareto-MODEL.png          tables and fronts, written by the command at the end

Each variant of a network is built once and run shard by shard. A shard is a task: if its worker
dies, another worker runs it again. Sums are formed in the client, which counts each shard once. Few
shards are submitted at a time, so that the memory of client, scheduler and workers does not grow
with the number of clips.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.folder import render_reports
from mksgn.bench.progress import Identity, Progress, check_digests, check_same
from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from mksgn.bench.run import limits_identity
from mksgn.bench.run_files import SWEEP
from mksgn.bench.samples import SampleSet, as_samples, open_data
from mksgn.bench.shards import Shard, shards
from mksgn.bench.sweep import tasks
from mksgn.bench.sweep.cluster import connected
from mksgn.bench.sweep.folder import begin, pictures
from mksgn.bench.sweep.grid import Grid, Point, Variant
from mksgn.common.console import output
from mksgn.common.errors import BadInputError
from mksgn.common.extras import MissingExtraError
from mksgn.common.progress import track
from mksgn.common.writing import replacing_folder, write_bytes
from mksgn.deploy.placement.chips import Chip, chip_named
from mksgn.deploy.run_files import MANIFEST_FILE
from mksgn.deploy.run_folder import environment
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets.arrays import is_array_source

if TYPE_CHECKING:
    from distributed import Client, Future

SAVE_EVERY_S = 5.0  # of each variant's progress
SHARDS_PER_THREAD = 4  # submitted and unfinished: the next ones reach a worker while it computes
CLIPS_ON_WORKERS = 1024  # at most, kept there for the next variant; those of a larger set are sent for each

Unfinished = dict[str, tuple[Variant, list[Point]]]


def sweep(
    grid: Grid,
    out: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    models: list[EnergyModel] | None = None,
    chips: list[Chip] | None = None,
    tables: Callable[[Path, dict[str, Record]], object] = lambda folder, records: None,
) -> dict[str, Record]:
    """Run all points of a grid.

    Args:
        grid: The networks and their data.
        out: Folder of the sweep.
        workers: Processes on this machine; None starts one per core.
        scheduler: Address of a Dask scheduler to use instead.
        resume: Continue the sweep in `out`.
        overwrite: Replace the sweep in `out`, which stays until this one is finished.
        models: Energy models to price the runs with; None takes the known ones.
        chips: Chips that the grid may name; None takes the known ones.
        tables: Writes tables and pictures of the records into a folder, which belong to the sweep.

    Returns:
        Every point's record by label, in the grid's order.

    Raises:
        BadInputError: The grid cannot be run, the folder holds a sweep that is neither to be resumed nor to be replaced, or
            another one; another process writes into it; a task kills every worker.
        MissingExtraError: Dask is not installed.
    """
    SWEEP.check(out, resume=resume, overwrite=overwrite)
    models = known_models() if models is None else models
    placed_on = {name: chip_named(name, chips) for name in grid.axes.chip}
    for name in grid.energy_models:
        model_named(name, models)
    clips = _samples(grid)
    checkpoints = {label: _read(Path(path)) for label, path in grid.axes.model.items()}
    request = {
        **grid.request(),
        "models": {label: sha256(Path(path)) for label, path in grid.axes.model.items()},
        **clips.identity(),
        "joints": [clips.digest(index) for index in (0, -1)],
        "environment": environment(),
        **limits_identity(placed_on.values()),
    }
    with SWEEP.writing(out, resume=resume, overwrite=overwrite, old=pictures) as place:
        begin(place, out, request)
        if unfinished := _unfinished(grid, place):
            with connected(workers, scheduler) as client:
                _check_versions(client, request["environment"])
                _Runner(grid, place, client, clips, models, placed_on, request).run(unfinished, checkpoints)
        records = {point.label: load(place / "points" / point.label) for point in grid.points()}
        tables(place, records)
    return records


def _samples(grid: Grid) -> SampleSet:
    samples = as_samples(open_data(grid.data, split=grid.split, limit=grid.limit, seed=grid.seed))
    if not len(samples):
        raise BadInputError(f"{grid.data}: no samples")
    if samples.labels is None:
        raise BadInputError(f"{grid.data}: a sweep compares accuracy with energy, and there are no labels; add y")
    return samples


def _unfinished(grid: Grid, place: Path) -> Unfinished:
    unfinished: Unfinished = {}
    for variant in grid.variants():
        points = [Point(variant=variant, chip=chip) for chip in grid.axes.chip]
        if not all(_finished(place, point) for point in points):
            unfinished[variant.label] = (variant, points)
    return unfinished


class _Runner:
    """The client: submits tasks, adds up their results and writes them."""

    def __init__(
        self,
        grid: Grid,
        out: Path,
        client: Client,
        clips: SampleSet,
        models: list[EnergyModel],
        chips: dict[str, Chip],
        request: Identity,
    ) -> None:
        self.grid, self.out, self.client, self.clips, self.models = grid, out, client, clips, models
        self.chips, self.request = chips, request
        self.settings = grid.settings
        self.facts = self._data(clips.described())
        self.seed = None if is_array_source(grid.data) else grid.seed
        self.unfinished: Unfinished = {}
        self.waiting = self._waiting()
        self.shards: OrderedDict[range, Future] = OrderedDict()  # clips on the workers, most recently used last
        self.progress: dict[str, Progress] = {}
        self.saved: dict[str, float] = {}
        self.networks: dict[str, Future] = {}
        # variants run one after the other, so that workers keep few networks compiled
        self.priority: dict[str, int] = {}
        # each task's kind, and what it computes
        self.pending: dict[Future, tuple[str, Any]] = {}

    def run(self, unfinished: Unfinished, checkpoints: dict[str, bytes]) -> None:
        """Run the unfinished variants; `checkpoints` are the files of their models by label."""
        self.unfinished = unfinished
        grid = self.grid
        calibration = open_data(grid.data, split=grid.split, part="train", limit=grid.calibration, seed=grid.seed)
        samples = self._data(as_samples(calibration).read())
        files = {label: self._data(content) for label, content in checkpoints.items()}
        first: list[Future] = []
        for number, (label, (variant, _)) in enumerate(unfinished.items()):
            self.priority[label] = -number
            first += self._begin(label, variant, files[variant.model], samples)
        try:
            self._collect(first)
        finally:
            for label, progress in self.progress.items():
                if progress.done.any() and not progress.complete:
                    progress.save(self._progress_file(label))

    def _begin(self, label: str, variant: Variant, model: Future, samples: Future) -> list[Future]:
        """Submit the task that builds a variant's network, and read its progress."""
        network, submitted = self._network_file(label), []
        if network.is_file():
            self.networks[label] = self._data(network.read_bytes())
        else:
            self.networks[label] = self._submit(label, tasks.build, variant, model, samples, self.settings)
            submitted.append(self._await("network", label, self.networks[label]))
        path, identity = self._progress_file(label), {**self.request, "variant": label}
        progress = Progress(identity, len(self.clips))
        if network.is_file() and path.is_file():
            progress = Progress.load(path)
            check_same(path, progress.identity, json.loads(json.dumps(identity)))
            check_digests(path, self.clips, progress.digests)
        self.progress[label], self.saved[label] = progress, time.monotonic()
        return submitted + (self._finish(label) if progress.complete else [])

    def _waiting(self) -> Iterator[tuple[str, range]]:
        """Yield the unfinished shards that are still to be submitted, variant by variant."""
        for label in self.unfinished:
            if label in self.progress:  # else it was complete, and its points are written
                for which in shards(~self.progress[label].done, self.grid.shard):
                    yield label, which

    def _next_shards(self) -> list[Future]:
        """Submit shards until there are enough for the workers."""
        room = SHARDS_PER_THREAD * sum(self.client.nthreads().values())
        room -= sum(kind == "shard" for kind, _ in self.pending.values())
        submitted = []
        for label, which in itertools.islice(self.waiting, max(room, 0)):
            result = self._submit(
                label, tasks.execute, self.networks[label], self._clips_of(which), which.start, self.settings
            )
            submitted.append(self._await("shard", (label, which), result))
        return submitted

    def _clips_of(self, which: range) -> Future:
        """Return the clips of a shard; send them unless they are on the workers."""
        if which not in self.shards:
            self.shards[which] = self._data(self.clips.take(which))
        self.shards.move_to_end(which)
        while sum(map(len, self.shards)) > max(CLIPS_ON_WORKERS, len(which)):
            self.shards.popitem(last=False)
        return self.shards[which]

    def _finish(self, label: str) -> list[Future]:
        """Submit the tasks that make the folders of a variant's points."""
        arguments = (self.networks[label], self.facts, self.seed, self.settings, self.progress[label])
        return [
            self._await(
                "point", point, self._submit(label, tasks.finish, *arguments, self.chips[point.chip], self.models)
            )
            for point in self.unfinished[label][1]
            if not _finished(self.out, point)
        ]

    def _data(self, value: Any) -> Future:
        return self.client.submit(tasks.data, value, pure=False)

    def _submit(self, label: str, function: Callable[..., Any], *arguments: Any) -> Future:
        return self.client.submit(function, *arguments, pure=False, priority=self.priority[label])

    def _await(self, kind: str, which: Any, future: Future) -> Future:
        self.pending[future] = (kind, which)
        return future

    def _collect(self, first: list[Future]) -> None:
        """Take results as they complete, until no task is left."""
        from distributed import as_completed

        queue = as_completed([*first, *self._next_shards()])
        first.clear()  # workers free a result when nothing refers to it
        total = sum(int((~progress.done).sum()) for progress in self.progress.values())
        output.print(
            f"{len(self.unfinished)} networks, {total:,} samples to run on {len(self.client.nthreads())} workers"
        )
        for future in track(queue, total, "samples", self._size):
            kind, which = self.pending.pop(future)
            result = _result(future, which)
            if kind == "network":
                self._network_file(which).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(self._network_file(which), result)
            elif kind == "shard":
                label, _ = which
                self._add(label, result)
                queue.update(self._next_shards())
                if self.progress[label].complete:
                    queue.update(self._finish(label))
            else:
                self._write(which, result)

    def _size(self, future: Future) -> int:
        kind, which = self.pending.get(future, ("", None))
        return len(which[1]) if kind == "shard" else 0

    def _add(self, label: str, shard: Shard) -> None:
        progress = self.progress[label]
        progress.add(shard)
        if progress.complete or time.monotonic() - self.saved[label] > SAVE_EVERY_S:
            self._progress_file(label).parent.mkdir(parents=True, exist_ok=True)
            progress.save(self._progress_file(label))
            self.saved[label] = time.monotonic()

    def _write(self, point: Point, files: dict[str, bytes]) -> None:
        """Write a point's folder, all of it or nothing."""
        folder = self.out / "points" / point.label
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as draft:
            for name, content in files.items():
                write_bytes(draft / name, content)
            with suppress(MissingExtraError):  # reported by the picture at the end
                render_reports(draft, draft)
        label = point.variant.label
        if all(_finished(self.out, other) for other in self.unfinished[label][1]):
            self._progress_file(label).unlink(missing_ok=True)
            self.progress.pop(label)
            self.networks.pop(label)

    def _network_file(self, label: str) -> Path:
        return self.out / "networks" / f"{label}.nir"

    def _progress_file(self, label: str) -> Path:
        return self.out / "progress" / f"{label}.npz"


def _finished(out: Path, point: Point) -> bool:
    return (out / "points" / point.label / MANIFEST_FILE).is_file()


def _check_versions(client: Client, expected: dict[str, str]) -> None:
    """Raise BadInputError unless all workers have the client's versions, since their results share a record."""
    for worker, versions in client.run(environment).items():
        for tool in {**expected, **versions}:
            if versions.get(tool) != expected.get(tool):
                raise BadInputError(
                    f"worker {worker}: {tool} {versions.get(tool, 'is missing')}, here "
                    f"{expected.get(tool, 'it is missing')}; install the same versions on all workers"
                )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}; name a model.pt that mksgn-train wrote, or a NIR file"
        ) from error


def _result(future: Future, which: Any) -> Any:
    """Return a task's result; a task that kills its workers becomes a BadInputError."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise BadInputError(
            f"{which}: every worker that ran this task died; give each more memory, with fewer --workers or a "
            "smaller shard"
        ) from error
