"""From an execution to its record: count the events, price them, and compare them with published figures."""

import platform
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mksgn.bench import counters, gcn
from mksgn.bench.accuracy import accuracy_of, classes_of
from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel, known_models, price
from mksgn.bench.layer import Layer, silent
from mksgn.bench.progress import Progress
from mksgn.bench.record import Data, Limit, Mismatch, ModelFile, Parity, Placement, Record, Run
from mksgn.bench.samples import SampleSet
from mksgn.bench.schedule import schedule_of
from mksgn.bench.shards import Network, Settings
from mksgn.bench.step_time import Timing
from mksgn.bench.timing import timings
from mksgn.bench.timing_models import TimingModel, known_timing_models
from mksgn.bench.verdicts import evaluate_claims
from mksgn.common.errors import MksgnWarning
from mksgn.common.quoting import printable
from mksgn.common.words import first_three
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement import check
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.chips import CHIPS, Chip, chip_named
from mksgn.deploy.placement.loads import core_loads
from mksgn.deploy.placement.mesh import Hop, coordinates, hops_of_run
from mksgn.deploy.placement.place import Placement as Placed
from mksgn.deploy.placement.place import place
from mksgn.deploy.program.program import Program
from mksgn.deploy.run_folder import environment


@dataclass(frozen=True)
class EvaluationOptions:
    """What a run is evaluated with; by default all known models and figures.

    Args:
        chip: Chip whose cores the network is placed on, for messages and limits.
        models: Energy models.
        claims: Published figures.
        chips: Chips that names refer to.
        timing_models: Timing models, each with its own chip.
        balance: Time the balanced placement as well as the compact one.
    """

    chip: str = "loihi2"
    models: list[EnergyModel] = field(default_factory=known_models)
    claims: list[Published] = field(default_factory=published_claims)
    chips: list[Chip] = field(default_factory=lambda: list(CHIPS.values()))
    timing_models: list[TimingModel] = field(default_factory=known_timing_models)
    balance: bool = False

    @property
    def placed_on(self) -> Chip:
        """The chip. Raises DeployError if no chip has that name."""
        return chip_named(self.chip, self.chips)


def record_of(
    network: Network,
    samples: SampleSet,
    settings: Settings,
    progress: Progress,
    execution: Execution,
    *,
    seed: int | None,
    options: EvaluationOptions,
) -> Record:
    """Build the record of a run whose samples are all executed.

    Args:
        network: The compiled network.
        samples: The samples of the run, bound to the network.
        settings: How they were executed.
        progress: Sums over all shards.
        execution: The same sums, as one execution.
        seed: Seed of synthetic clips.
        options: Chip, energy models and published figures.
    """
    program, labels = network.program, samples.labels
    placed = place(program, options.placed_on)
    encoder_steps = 1 if samples.constant(program) else execution.steps
    layers = counters.layers(program, execution, placed, encoder_steps=encoder_steps)
    classes = class_names(network, samples, settings)
    _warn_of_silence(program, layers)
    counted = Record(
        model=ModelFile(file=network.model.name, sha256=network.sha256),
        data=Data(source=samples.source, split=samples.split, clips=len(samples)),
        seed=seed,
        environment={**environment(), "platform": platform.platform()},
        parents=network.parents,
        execution=_run(execution, settings, progress, len(samples), encoder_steps),
        accuracy=None if labels is None else accuracy_of(labels, progress.predictions, classes),
        layers=layers,
        totals=counters.totals(
            program, execution, layers, len(samples), encoder_steps=encoder_steps, hops=_hops(placed, execution)
        ),
        energy=[],
        claims=[],
        parity=_parity(network, progress),
        placement=_placement(placed),
        gcn=None if network.graph is None else gcn.gcn_of(network.graph, progress.bodies / len(samples)),
        student=network.is_student,
        schedule=schedule_of(program),
    )
    priced = evaluate_claims(counted, options.models, options.claims)
    timed = _timings(placed, execution, options, len(samples), encoder_steps)
    return priced.model_copy(update={"timing": timed})


def _warn_of_silence(program: Program, layers: Sequence[Layer]) -> None:
    """Warn if nothing that an output depends on fires: accuracy and energy then say nothing about the network."""
    names = silent(layers)
    firing = any(layer.spikes for layer in layers if layer.place == "chip")
    if names and (not firing or {output.population for output in program.outputs} <= {*names}):
        warnings.warn(
            f"{first_three([*map(printable, names)])} never fired, so accuracy and energy say nothing about the "
            f"network; check the time step ({program.dt:g} s), the integration and the scale of the inputs (--dt, "
            "--if-dt, --integration)",
            MksgnWarning,
            stacklevel=2,
        )


def _warn_of_neurons(program: Program, chips: Iterable[Chip]) -> None:
    """Warn if a chip whose times and prices are given does not have the network's kinds of neuron."""
    for chip in chips:
        if violations := check.kinds_of_neuron(program, chip):
            more = f" and {len(violations) - 1} more" if len(violations) > 1 else ""
            warnings.warn(
                f"{chip.name} cannot run this network as it is, so times and energies at its latencies and prices are those "
                f"of its events on another chip: {violations[0]}{more}",
                MksgnWarning,
                stacklevel=2,
            )


def _timings(
    placed: Placed, execution: Execution, options: EvaluationOptions, samples: int, encoder_steps: int
) -> list[Timing]:
    program, models = placed.program, {model.name: model for model in options.models}
    names = dict.fromkeys(model.chip for model in options.timing_models if model.latencies_ns)
    _warn_of_neurons(program, [chip_named(name, [*CHIPS.values(), *options.chips]) for name in names])

    def energy_of(model: str, placement: Placed) -> float | None:
        """Return the energy per sample under a model, with the messages of that placement."""
        if model not in models:
            return None
        rows = counters.layers(program, execution, placement, encoder_steps=encoder_steps)
        crossed = _hops(placement, execution)
        sums = counters.totals(program, execution, rows, samples, encoder_steps=encoder_steps, hops=crossed)
        return price(models[model], sums, steps=execution.steps).priced_mJ

    return timings(
        program,
        execution,
        options.timing_models,
        chips=options.chips,
        balance=options.balance,
        bodies_per_sample=execution.samples / samples,
        energy_of=energy_of,
        placed=placed,
    )


def _hops(placed: Placed, execution: Execution) -> dict[Hop, int] | None:
    """Count the hops of the run's messages; None if cores have no coordinates, or no spikes were stored."""
    if coordinates(placed) is None or not execution.spikes:
        return None
    counted = core_loads(placed, Activity(placed.program, execution.spikes))
    per_neuron = {name: counts.per_neuron for name, counts in execution.counters.items()}
    coincidences = {name: counts.coincidences for name, counts in execution.counters.items()}
    return hops_of_run(placed, per_neuron, coincidences, counted)


def _placement(placed: Placed) -> Placement:
    rows = []
    for name, value, limit in check.limits(placed, placed.chip):
        stated = placed.chip.statement(name)
        said = (None, None) if stated is None else (stated.evidence, stated.source)
        rows.append(Limit(name=name, value=value, max=limit, evidence=said[0], source=said[1]))
    violations = check.check(placed, placed.chip)
    return Placement(chip=placed.chip.name, cores=placed.cores, chips=placed.chips, limits=rows, violations=violations)


def _run(execution: Execution, settings: Settings, progress: Progress, samples: int, encoder_steps: int) -> Run:
    return Run(
        backend=settings.backend,
        precision=settings.precision,
        steps=execution.steps,
        latency_steps=execution.latency_steps,
        seconds=execution.seconds,
        clips_per_second=samples / execution.seconds,
        repeats=settings.repeats,
        seconds_min=float(progress.seconds.min()),
        seconds_max=float(progress.seconds.max()),
        encoder_steps=encoder_steps,
        decode=str(settings.decoding),
        compiling=settings.compiling.departures(),
    )


def class_names(network: Network, samples: SampleSet, settings: Settings) -> tuple[str, ...]:
    """Return the names of a run's classes. Raises BadInputError if labels do not fit the decoded output."""
    output = settings.decoding.check(network.program)
    (population,) = (o.population for o in network.program.outputs if o.name == output)
    return classes_of(samples, network.program[population].size)


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
        against=", ".join(compared.against),
        decisions=compared.decisions,
        mismatches=compared.mismatches,
        first=first,
        rounding=compared.rounding,
    )
