"""From an execution to its record: count the events, price them, and compare them with published figures."""

import platform
from dataclasses import dataclass, field

from mksgn.bench import counters, gcn
from mksgn.bench.accuracy import accuracy_of
from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel, known_models
from mksgn.bench.progress import Progress
from mksgn.bench.record import Data, Limit, Mismatch, ModelFile, Parity, Placement, Record, Run
from mksgn.bench.shards import Network, Settings
from mksgn.bench.verdicts import evaluate_claims
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.chips import chip_named
from mksgn.deploy.placement.place import place
from mksgn.deploy.run_folder import environment
from mksgn.train.datasets import ClipSet


@dataclass(frozen=True)
class EvaluationOptions:
    """The chip whose cores a network is placed on, energy models and published figures; by default all known ones."""

    chip: str = "loihi2"
    models: list[EnergyModel] = field(default_factory=known_models)
    claims: list[Published] = field(default_factory=published_claims)


def record_of(
    network: Network,
    clips: ClipSet,
    settings: Settings,
    progress: Progress,
    execution: Execution,
    *,
    seed: int | None,
    options: EvaluationOptions,
) -> Record:
    """Build the record of a run whose clips are all executed.

    Args:
        network: The compiled network.
        clips: The clips of the run.
        settings: How they were executed.
        progress: Sums over all shards.
        execution: The same as one execution.
        seed: Seed of synthetic clips.
        options: Chip, energy models and published figures.
    """
    placed = place(network.program, chip_named(options.chip))
    layers = counters.layers(network.program, execution, placed)
    parent = network.graph.metadata.get("parent")
    counted = Record(
        model=ModelFile(file=network.model.name, sha256=network.sha256),
        data=Data(source=clips.source, split=clips.split, clips=len(clips)),
        seed=seed,
        environment={**environment(), "platform": platform.platform()},
        parents=[parent] if parent else [],
        execution=Run(
            backend=settings.backend,
            precision=settings.precision,
            steps=execution.steps,
            latency_steps=execution.latency_steps,
            seconds=execution.seconds,
            clips_per_second=len(clips) / execution.seconds,
            repeats=settings.repeats,
            seconds_min=float(progress.seconds.min()),
            seconds_max=float(progress.seconds.max()),
        ),
        accuracy=accuracy_of(clips.labels, progress.predictions, clips.classes),
        layers=layers,
        totals=counters.totals(network.program, execution, layers, len(clips)),
        energy=[],
        claims=[],
        parity=_parity(network, progress),
        placement=Placement(
            chip=placed.chip.name,
            cores=placed.cores,
            chips=placed.chips,
            limits=[Limit(name=name, value=value, max=limit) for name, value, limit in placed.limits],
        ),
        gcn=gcn.gcn_of(network.graph, progress.bodies / len(clips)),
    )
    return evaluate_claims(counted, options.models, options.claims)


def _parity(network: Network, progress: Progress) -> Parity | None:
    compared = progress.compared
    if not compared.decisions:
        return None
    first = None
    if compared.first is not None:
        _, layer, clip, step = compared.first
        names = [*(p.name for p in network.program.populations), "a population that the program lacks"]
        first = Mismatch(layer=names[layer], clip=clip, step=step)
    return Parity(
        against=", ".join(compared.against), decisions=compared.decisions, mismatches=compared.mismatches, first=first
    )
