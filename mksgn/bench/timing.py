"""How long a run takes on a chip's cores: the time of each step, what limits it, latency and throughput.

A time step lasts as long as its busiest core works, plus the barrier after it. A core's work has two
halves: its neurons, whose spikes leave as messages, and the messages that arrive.

    N_c = access n_c + update u_c + spike s_c + message_out o_c
    M_c = message_in i_c + Σ_kind synaptic_op[kind] ops_c[kind]

    lower bound   max_c max(N_c, M_c) + barrier       the halves overlap, and no message waits
    estimate      max_c N_c + max_c M_c + hops + barrier   every neuron is updated, and messages are
                                                      processed after all neurons; the longest route

The lower bound is the formula of SANA-FE's simplest timing model on our counts; docs/chip-time.md says
where SANA-FE's counts differ. Our counts are exact (deploy.placement.loads) and cover the bodies whose spikes
are stored. Throughput is that of bodies that follow each other without a pause: the pipeline is
full, and in each step all populations work at once. Latency is that of one body that is alone on
the chip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mksgn.bench.step_time import Binding, PlacementTime, Span, Timing
from mksgn.bench.timing_models import TimingModel, known_timing_models
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.balanced import balanced
from mksgn.deploy.placement.chips import CHIPS, Chip, chip_named
from mksgn.deploy.placement.loads import COLUMN, EVENTS, Loads, core_loads
from mksgn.deploy.placement.mesh import coordinates, hops
from mksgn.deploy.placement.needs import graded_senders
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.placement.work import Work
from mksgn.deploy.program.program import Program

NEURONS = ("accesses", "updates", "spikes", "messages_out")  # events of a core's first half
BINDINGS = 5  # largest number that is listed


def timings(
    program: Program,
    execution: Execution,
    models: Sequence[TimingModel],
    *,
    chips: Sequence[Chip],
    balance: bool,
    bodies_per_sample: float,
    energy_of: Callable[[str, Placement], float | None],
    placed: Placement | None = None,
) -> list[Timing]:
    """Evaluate a run under every timing model, on the cores of the model's chip.

    Args:
        program: The compiled network.
        execution: Its execution; the spikes of its first bodies are counted by core and step, those of
            spiking inputs included.
        models: Timing models.
        chips: Chips that the models may name, besides the known ones.
        balance: Evaluate the balanced placement as well as the compact one.
        bodies_per_sample: Mean number of bodies of a sample.
        energy_of: Returns the energy per sample in mJ under an energy model, on a placement: a lower bound;
            None if unknown.
        placed: The compact placement on one of the chips, if it has been made already.

    Returns:
        One entry per model; none where no spikes were stored.
    """
    if not execution.spikes or not any(len(x) for x in execution.spikes.values()):
        return []
    activity = Activity(program, execution.spikes)
    found = []
    for model in models:
        chip = chip_named(model.chip, [*CHIPS.values(), *chips])
        placements = {"compact": placed if placed is not None and placed.chip == chip else place(program, chip)}
        if balance:
            placements["balanced"] = _balanced(model, placements["compact"], activity, execution)
        energy = {
            name: None if model.energy_model is None else energy_of(model.energy_model, placement)
            for name, placement in placements.items()
        }
        found.append(timing(model, placements, activity, bodies_per_sample=bodies_per_sample, energy_mJ=energy))
    return found


def _balanced(model: TimingModel, compact: Placement, activity: Activity, execution: Execution) -> Placement:
    """Return a placement balanced at the firing rates of the run; a model that only counts borrows latencies."""
    rates = {}
    for name, counters in execution.counters.items():
        decisions = execution.samples * execution.steps
        rates[name] = float(counters.per_neuron.mean()) / decisions if counters.per_neuron.size else 0.0
        if counters.product_updates:
            rates[f"{name} units"] = counters.coincidences / counters.product_updates
    timed = with_latencies(model)

    def time(placement: Placement) -> float:
        return float(step_times(timed, placement, core_loads(placement, activity).streaming())[0].mean())

    return balanced(compact.program, compact.chip, Work(_by_event(timed), rates), time, compact)


def expected_balance(compact: Placement) -> Placement:
    """Balance a network that has not run, with one firing rate for all populations and its chip's timing model."""
    models = known_timing_models()
    model = with_latencies(next((m for m in models if m.chip == compact.chip.name), models[0]))
    return balanced(compact.program, compact.chip, Work(_by_event(model), {}), compact=compact)


def with_latencies(model: TimingModel) -> TimingModel:
    """Return the model, or a known one with latencies if it has none: to weigh events of a chip that nobody timed."""
    return model if model.latencies_ns is not None else next(m for m in known_timing_models() if m.latencies_ns)


def timing(
    model: TimingModel,
    placements: Mapping[str, Placement],
    activity: Activity,
    *,
    bodies_per_sample: float,
    energy_mJ: Mapping[str, float | None] | None = None,
) -> Timing:
    """Evaluate placements on the model's chip.

    Args:
        model: The timing model.
        placements: Placements by name: compact, balanced.
        activity: Spikes of the bodies that are counted.
        bodies_per_sample: Mean number of bodies of a sample.
        energy_mJ: Energy per sample under the model's energy model by placement, lower bounds.
    """
    rows = [
        _placement_time(
            model, name, placement, core_loads(placement, activity), bodies_per_sample, (energy_mJ or {}).get(name)
        )
        for name, placement in placements.items()
    ]
    tiles = max(_tiles(placement) for placement in placements.values())
    program = activity.program
    return Timing(
        model=model.name,
        chip=model.chip,
        evidence=model.evidence,
        source=model.source,
        bodies=activity.samples,
        steps=activity.steps,
        latency_steps=program.latency,
        latencies_ns={} if model.latencies_ns is None else _by_event(model),
        not_counted=[p.name for p in graded_senders(program)],
        barrier_us=model.barrier(tiles),
        placements=rows,
    )


def _placement_time(
    model: TimingModel, name: str, placement: Placement, loads: Loads, bodies: float, energy_mJ: float | None
) -> PlacementTime:
    streaming, length = loads.streaming(), loads.steps + placement.program.latency
    counted = PlacementTime(
        place="balanced" if name == "balanced" else "compact",
        cores=placement.cores,
        chips=placement.chips,
        busiest=dict(zip(EVENTS, streaming.max(axis=2, initial=0).mean((0, 1)).tolist(), strict=True)),
        hops=_hops(placement, loads),
    )
    if model.latencies_ns is None:
        return counted
    step, alone = step_times(model, placement, streaming), step_times(model, placement, loads.counts[:, :length])
    latency = Span(lower=alone[0].sum(1).mean(), estimate=alone[1].sum(1).mean())
    period = [x.mean() * loads.steps * bodies for x in step]  # µs per sample
    watts = model.static_power_W
    times = {
        "step_us": Span(lower=step[0].mean(), estimate=step[1].mean()),
        "longest_step_us": Span(lower=step[0].max(), estimate=step[1].max()),
        "latency_us": latency,
        "samples_per_second": Span(lower=1e6 / period[1], estimate=1e6 / period[0]),
        "binding": _bindings(model, placement, streaming),
        "static_mJ": None if watts is None else Span(lower=watts * period[0] * 1e-3, estimate=watts * period[1] * 1e-3),
        "energy_delay_mJ_ms": None if energy_mJ is None else energy_mJ / bodies * latency.lower * 1e-3,
    }
    return counted.model_copy(update=times)


def _hops(placement: Placement, loads: Loads) -> dict[str, float] | None:
    crossed = hops(placement, loads.messages, loads.steps)
    if crossed is None:
        return None
    bodies = len(loads.counts)
    per_body = {name: getattr(crossed, name) / bodies for name in ("within_tile", "east_west", "north_south")}
    return {**per_body, "busiest_link": crossed.busiest_link}


def step_times(model: TimingModel, placement: Placement, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each step's lower bound and estimate in µs, (samples, steps), from (samples, steps, cores, EVENTS)."""
    messages, tiles = _halves(model, counts)[1], _tiles(placement)
    all_updated = counts.copy()
    all_updated[..., COLUMN["updates"]] = counts[..., COLUMN["accesses"]]
    estimate = (
        _halves(model, all_updated)[0].max(2) + messages.max(2) + _longest_way(model, placement)
    ) / 1e3 + model.barrier(tiles)
    return lower_bounds(model, counts, tiles), estimate


def lower_bounds(model: TimingModel, counts: np.ndarray, tiles: int) -> np.ndarray:
    """Return the lower bound of each step's time in µs, (samples, steps): SANA-FE's simplest model, on any counts.

    Args:
        model: A timing model with latencies.
        counts: (samples, steps, cores, EVENTS).
        tiles: Tiles of the mesh in use, for the barrier.
    """
    return np.maximum(*_halves(model, counts)).max(2) / 1e3 + model.barrier(tiles)


def _halves(model: TimingModel, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the time in ns of each core's neurons, and of its messages."""
    latency = _latency_of_events(model)
    first = np.array([event in NEURONS for event in EVENTS])
    return counts @ (latency * first), counts @ (latency * ~first)


def _by_event(model: TimingModel) -> dict[str, float]:
    assert model.latencies_ns is not None
    return model.latencies_ns.by_event()


def _latency_of_events(model: TimingModel) -> np.ndarray:
    by_event = _by_event(model)
    return np.array([by_event[event] for event in EVENTS])


def _bindings(model: TimingModel, placement: Placement, counts: np.ndarray) -> list[Binding]:
    """Return what the busiest core of each step spent most of its time on."""
    neurons, messages = _halves(model, counts)
    busiest = np.maximum(neurons, messages).argmax(2)  # (samples, steps)
    latency, names = _latency_of_events(model), _population_of_core(placement)
    time: dict[tuple[str, str], float] = defaultdict(float)
    for sample, step in np.ndindex(busiest.shape):
        core = busiest[sample, step]
        half = neurons[sample, step, core] >= messages[sample, step, core]
        spent = counts[sample, step, core] * latency * [(event in NEURONS) == half for event in EVENTS]
        time[names[core], EVENTS[int(spent.argmax())]] += spent.sum()
    total = sum(time.values()) or 1.0
    ranked = sorted(time.items(), key=lambda item: (-item[1], item[0]))
    return [
        Binding(population=population, event=event, share=spent / total)
        for (population, event), spent in ranked[:BINDINGS]
    ]


def _population_of_core(placement: Placement) -> Sequence[str]:
    return [p.name for p in placement.populations for _ in range(p.cores)]


def _tiles(placement: Placement) -> int:
    """Return the number of tiles of the chip's mesh in use; each core counts as one if the chip has no mesh."""
    mesh = placement.chip.mesh
    return -(-placement.cores // (1 if mesh is None else mesh.cores_per_tile))


def _longest_way(model: TimingModel, placement: Placement) -> float:
    """Return the time in ns of a message across the part of the mesh in use; 0 if unknown."""
    at = coordinates(placement)
    if at is None or model.latencies_ns is None or model.latencies_ns.hop is None:
        return 0.0
    columns, rows = (at.max(0) - at.min(0)).tolist()
    return columns * model.latencies_ns.hop.east_west + rows * model.latencies_ns.hop.north_south
