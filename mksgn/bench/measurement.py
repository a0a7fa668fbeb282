"""`measure`: a network's energy and accuracy on labelled samples, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np

from mksgn.bench import folder, run_files, summary
from mksgn.bench.claims import Published
from mksgn.bench.energy_models import EnergyModel, known_models
from mksgn.bench.evaluation import EvaluationOptions, class_names, record_of
from mksgn.bench.progress import Progress
from mksgn.bench.record import EnergyEntry, Layer, Record
from mksgn.bench.run import check_parity, compiled_file, execution_of, finish, quantised_graph
from mksgn.bench.samples import SampleSet, given_samples
from mksgn.bench.shards import Network, Settings, run_shard, shards
from mksgn.bench.timing_models import TimingModel, known_timing_models
from mksgn.common.errors import BadInputError
from mksgn.deploy import run_folder
from mksgn.deploy.choices import BackendName, PrecisionName
from mksgn.deploy.decode import Decoding
from mksgn.deploy.options import Reading
from mksgn.deploy.placement.chips import Chip, chip_named
from mksgn.deploy.program.program import Program
from mksgn.export.graph import files
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.metadata import json_of

GRAPH_FILE, PROGRAM_FILE = "model.nir", "program.txt"  # names for what was given in memory


@dataclass(frozen=True, eq=False)
class Run:
    """A measured run.

    Attributes:
        record: The record, as run.json holds it.
        predictions: Class of each sample, (samples,) int64.
    """

    record: Record
    predictions: np.ndarray
    network: Network
    samples: SampleSet
    settings: Settings
    progress: Progress
    options: EvaluationOptions

    @property
    def accuracy(self) -> float | None:
        """Top-1, a fraction; None without labels."""
        return None if self.record.accuracy is None else self.record.accuracy.top1

    @property
    def layers(self) -> list[Layer]:
        """Counts of each population over the whole run, in network order."""
        return self.record.layers

    @property
    def energy(self) -> dict[str, EnergyEntry]:
        """Energies in mJ per sample, by name of the energy model; `total_mJ` is None where an event has no price.

        A model that prices none of the run's events, such as one with latencies alone, has no entry.
        """
        return {entry.model: entry for entry in self.record.energy if entry.terms}

    def __str__(self) -> str:
        """Accuracy, counts and energies, a line each."""
        return summary.lines(self.record)

    def save(self, out: Path | str) -> Path:
        """Write the run's folder, as `mksgn-bench run` does, without reports; return it.

        A network in memory is written into it too. An earlier run there is replaced when this one is complete.

        Raises:
            BadInputError: The folder cannot be written, another process writes into it, or it holds another file of the
                network's name.
        """
        out = Path(out)
        with run_files.RUN.writing(out, overwrite=True, old=run_folder.listed) as place:
            if self.network.content is not None:
                folder.check_model(out, self.network.model.name, self.network.sha256)
            options, settings = self.options, self.settings
            finish(self.network, self.samples, place, settings, self.progress, seed=None, options=options)
        return out

    def report(self, out: Path | str) -> Path:
        """Write the run's folder with report.html and report.md; return the page's path.

        Raises:
            MissingExtraError: The extra `report` is not installed.
        """
        page, _ = folder.write_reports(self.save(out))
        return page


def measure(
    network: nir.NIRGraph | Program | str | Path,
    inputs: Arrays | Iterable[Any],
    labels: Any = None,
    *,
    precision: PrecisionName | None = None,
    calibration: Arrays | None = None,
    steps: int | None = None,
    decode: str = "sum",
    backend: BackendName = "emulator",
    compare: int | None = None,
    chip: str | Chip = "loihi2",
    energy_models: Sequence[EnergyModel] | None = None,
    claims: Sequence[Published] = (),
    timing_models: Sequence[TimingModel] | None = None,
    **compiling: Any,
) -> Run:
    """Run samples through a network, count its events, and price them.

    Args:
        network: A NIR graph, the path of its file, or a compiled program.
        inputs: (samples, steps, *input shape), or (samples, *input shape) which are presented at every
            step; a dict of such arrays by input's name; or an iterable of (x, y), of single samples or of
            batches, such as a torch DataLoader; for a student also clips, as open_source returns them.
        labels: Class of each sample, (samples,), or one-hot rows; None for a run without accuracy.
        precision: "fixed" or "float"; None: fixed for a quantised network or with `calibration`.
        calibration: Samples like `inputs` that quantise a graph, for fixed point.
        steps: Time steps of samples without a time axis; None: what the file says.
        decode: How an output becomes a prediction: sum, max, last or first-spike; with several
            outputs, HOW@OUTPUT (mksgn/deploy/decode).
        backend: What executes the network. A run in Lava is compared with the emulator.
        compare: Samples whose spikes are compared; None: all.
        chip: Chip of the placement: the name of a known one, or a Chip (mksgn.deploy.placement.chips).
        energy_models: Models to price with; None: the known ones.
        claims: Published figures to compare with.
        timing_models: Models of the time on a chip (mksgn.bench.timing_models); None: the known ones. Each chip is a
            known one or `chip`.
        compiling: Settings that the file leaves open, as for `compile_graph`: dt, if_dt, analog, …

    Raises:
        BadInputError: The network cannot run, or the samples do not fit it.
        ParityError: Spikes of a quantised network differ between executions.
    """
    known = _precision(network, precision, calibration)
    options = Reading(**{**compiling, **({"analog": _names(compiling["analog"])} if "analog" in compiling else {})})
    settings = Settings(backend, known, compare, 1, Decoding.of(decode), options)
    compiled = _network(network, settings, calibration, steps)
    samples = given_samples(inputs, labels, steps=steps).bound(compiled.program)
    compiled = compiled.presenting(samples)
    class_names(compiled, samples, settings)
    progress = Progress({}, len(samples))
    for which in shards(~progress.done, compiled.shard_size(backend)):
        progress.add(run_shard(compiled, samples.take(which), which.start, settings))
    on = chip if isinstance(chip, Chip) else chip_named(chip)
    models = known_models() if energy_models is None else list(energy_models)
    times = known_timing_models() if timing_models is None else list(timing_models)
    evaluation = EvaluationOptions(on.name, models, list(claims), [on], times)
    execution = execution_of(compiled, settings, progress)
    record = record_of(compiled, samples, settings, progress, execution, seed=None, options=evaluation)
    check_parity(compiled, record, "its .record")
    return Run(record, progress.predictions, compiled, samples, settings, progress, evaluation)


def _precision(
    network: nir.NIRGraph | Program | str | Path, precision: str | None, calibration: Arrays | None
) -> PrecisionName:
    if isinstance(network, Program):
        if precision not in (None, network.precision):
            raise BadInputError(f"precision {precision!r}: the program was compiled for {network.precision}")
        return network.precision
    if precision is not None:
        return precision  # type: ignore[return-value]  # Settings checks it
    if calibration is not None:
        return "fixed"
    graph = network if isinstance(network, nir.NIRGraph) else files.read(Path(network))
    return "float" if json_of(graph, "quantization") is None else "fixed"


def _names(analog: str | Iterable[str] | None) -> tuple[str, ...]:
    return (analog,) if isinstance(analog, str) else tuple(analog or ())


def _network(
    network: nir.NIRGraph | Program | str | Path, settings: Settings, calibration: Arrays | None, steps: int | None
) -> Network:
    if isinstance(network, Program):
        if given := settings.compiling.departures():
            raise BadInputError(
                f"{', '.join(given)}: cannot be set for a program that is already compiled; give its graph instead"
            )
        return Network.of_program(network, PROGRAM_FILE)
    if isinstance(network, nir.NIRGraph):
        if calibration is not None and settings.precision == "fixed" and json_of(network, "quantization") is None:
            network = quantised_graph(network, calibration, settings, steps=steps)
        return Network.of(network, GRAPH_FILE, settings.precision, settings.compiling)
    return compiled_file(Path(network), settings, calibration, steps)
