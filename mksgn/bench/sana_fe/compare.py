"""Compare a run of SANA-FE with the emulator's: spikes, synaptic operations, messages, hops, energy and time.

Events are counted in the sample's window of each population, as everywhere in mksgn. SANA-FE counts the whole
run: its neurons also work before and after their window, until the last population is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mksgn.bench import counters
from mksgn.bench.sana_fe.results import Messages, Results
from mksgn.bench.timing import lower_bounds, step_times
from mksgn.bench.timing_models import known_timing_models
from mksgn.deploy.emulator import host_values
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.loads import COLUMN, EVENTS, core_loads
from mksgn.deploy.placement.place import Placement
from mksgn.deploy.program.program import Program, Projection
from mksgn.deploy.sana_fe.network import CORES_PER_TILE, cores_of, group_names, synapse_kind, synapse_unit
from mksgn.deploy.sana_fe.synapses import synapses

TILES_PER_COLUMN = 4  # tile i is at x = i // 4, y = i % 4 of loihi.yaml's 8 x 4
UNITS = ("synapse", "soma", "network")
TIMING_MODEL = "sana-fe-loihi"


@dataclass(frozen=True)
class Counts:
    """Events of a population in the sample's window. Messages and hops are those that it sends."""

    spikes: int
    syn_ops: int
    messages: int
    hops: int


@dataclass(frozen=True)
class Row:
    """A population in both executions; `differing` are decisions that differ, `first` the earliest of them."""

    name: str
    neurons: int
    cores: int
    ours: Counts
    sana_fe: Counts
    differing: int
    first: str | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both executions of a sample.

    Attributes:
        ours: joules of the emulator's counts at loihi.yaml's prices, by unit: with as few updated neurons as
            possible (those that fired), and with all of them.
        window: joules of SANA-FE in the windows, by unit.
        run: joules of its whole run, by unit.
        updates: neurons updated in the windows: by our counts, in SANA-FE, and neurons accessed.
        step_us: time of each step under our timing model of SANA-FE's Loihi, by what was evaluated.
        time: seconds of each step in SANA-FE.
    """

    rows: list[Row]
    ours: dict[str, tuple[float, float]]
    window: dict[str, float]
    run: dict[str, float]
    updates: tuple[int, int, int]
    step_us: dict[str, np.ndarray]
    time: np.ndarray


def compare(placement: Placement, inputs: dict[str, np.ndarray], execution: Execution, results: Results) -> Comparison:
    """Compare SANA-FE's run of sample 0 with an execution of that sample alone.

    Args:
        placement: of the program, on Loihi 1.
        inputs: arrays (1, steps, *shape) by input's name.
        execution: the program's run on them.
        results: what SANA-FE wrote.
    """
    program, names = placement.program, group_names(placement.program)
    trains = host_values(program, inputs) | execution.spikes
    cores = cores_of(placement)
    windows = {name: (program[name].depth + 1, program[name].depth + execution.steps) for name in names}
    theirs = _counts_of_run(placement, cores, results)
    used = np.concatenate([*(each.ravel() for each in cores.values()), results.messages.source])
    tiles = len(np.unique(used // CORES_PER_TILE))
    messages = _in_windows(results.messages, {names[name]: window for name, window in windows.items()})
    routes = _routes(placement, cores, execution)
    sent = counters.messages(placement, execution).sent
    rows = []
    for name, group in names.items():
        differing, first = _differing(
            trains[name][0] if name in trains else None, results.spikes.get(group), windows[name], execution.steps
        )
        from_here, to_here = messages.group == group, np.isin(messages.target, np.unique(cores[name]))
        spikes = _window(results.spikes.get(group), windows[name])
        counts = execution.counters[name]
        _, columns, rows_down = routes[name]
        ours = Counts(
            counts.spikes, _chip_syn_ops(program, name, execution), sent.get(name, 0), int(columns + rows_down)
        )
        found = Counts(
            len(spikes), int(messages.syn_ops[to_here].sum()), int(from_here.sum()), int(messages.hops[from_here].sum())
        )
        rows.append(Row(name, program[name].size, len(np.unique(cores[name])), ours, found, differing, first))
    return Comparison(
        rows,
        _our_energy(program, execution, routes, results.prices),
        _window_energy(placement, cores, results, messages, windows),
        {unit: results.energy[unit] for unit in UNITS},
        _updated(placement, trains, cores, theirs, windows),
        _step_times(placement, trains, theirs, tiles),
        results.time,
    )


def _window(spikes: np.ndarray | None, window: tuple[int, int]) -> np.ndarray:
    if spikes is None:
        return np.zeros((0, 2), dtype=np.int64)
    return spikes[(spikes[:, 0] >= window[0]) & (spikes[:, 0] <= window[1])]


def _differing(
    train: np.ndarray | None, spikes: np.ndarray | None, window: tuple[int, int], steps: int
) -> tuple[int, str | None]:
    """Count the decisions of a population that differ, and name the first. A read-out never fires."""
    found = _window(spikes, window)
    if train is None:
        return len(found), None
    other = np.zeros((steps, train[0].size), dtype=bool)
    other[found[:, 0] - window[0], found[:, 1]] = True
    differ = np.argwhere(other != train.reshape(steps, -1))
    if not len(differ):
        return 0, None
    step, neuron = differ[0]
    return len(differ), f"step {step}, neuron {neuron}: SANA-FE {'fires' if other[step, neuron] else 'does not'}"


def _in_windows(messages: Messages, windows: Mapping[str, tuple[int, int]]) -> Messages:
    """Keep the messages that neurons send in their population's window; those of the hold neurons are in none."""
    bounds = np.array([windows.get(group, (1, 0)) for group in messages.group]).reshape(-1, 2)
    return messages.at((messages.step >= bounds[:, 0]) & (messages.step <= bounds[:, 1]))


def _chip_syn_ops(program: Program, name: str, execution: Execution) -> int:
    on_chip = program[name].location == "chip" and program[name].kind != "input"
    return execution.counters[name].syn_ops if on_chip else 0


def _routes(placement: Placement, cores: dict[str, np.ndarray], execution: Execution) -> dict[str, np.ndarray]:
    """Count the messages of each population that sends, their hops from column to column, and from row to row.

    A spike is one message for each core that its neuron has synapses on.
    """
    program = placement.program
    counts = {name: np.zeros(3, dtype=np.int64) for name in cores}
    reached: dict[str, list[np.ndarray]] = {}
    for projection in program.projections:
        if isinstance(projection, Projection) and program[projection.target].location == "chip":
            found = synapses(projection, program[projection.source].shape)
            pairs = np.stack([found.source, cores[projection.target][found.target]], axis=1)
            reached.setdefault(projection.source, []).append(np.unique(pairs, axis=0))
    for source, parts in reached.items():
        neuron, target = np.unique(np.concatenate(parts), axis=0).T
        spikes = execution.counters[source].per_neuron.reshape(-1)[neuron]
        columns, rows = hops(cores[source][neuron], target)
        counts[source] = np.array([spikes.sum(), (spikes * columns).sum(), (spikes * rows).sum()])
    return counts


def hops(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns and the rows of tiles between two cores."""
    start, end = (divmod(core // CORES_PER_TILE, TILES_PER_COLUMN) for core in (source, target))
    return np.abs(start[0] - end[0]), np.abs(start[1] - end[1])


def _network_energy(messages: int, columns: int, rows: int, prices: Mapping[str, Mapping[str, float]]) -> float:
    """Return the joules of messages and their hops; both directions of an axis cost the same in loihi.yaml."""
    tile, out = prices["tile"], prices["loihi_out"]
    return messages * out["energy_message_out"] + columns * tile["energy_east_hop"] + rows * tile["energy_north_hop"]


def _our_energy(
    program: Program, execution: Execution, routes: dict[str, np.ndarray], prices: dict[str, dict[str, float]]
) -> dict[str, tuple[float, float]]:
    soma, synapse, least, most = prices["loihi_lif"], 0.0, 0.0, 0.0
    for population in program.populations:
        if population.location == "host" or population.kind == "input":
            continue
        counts = execution.counters[population.name]
        synapse += counts.syn_ops * prices[synapse_unit(program, population)]["energy_process_spike"]
        every = counts.updates * soma["energy_access_neuron"] + counts.spikes * soma["energy_spike_out"]
        least += every + counts.spikes * soma["energy_update_neuron"]
        most += every + counts.updates * soma["energy_update_neuron"]
    messages, columns, rows = (int(n) for n in np.sum(list(routes.values()), axis=0))
    network = _network_energy(messages, columns, rows, prices)
    return {"synapse": (synapse, synapse), "soma": (least, most), "network": (network, network)}


def _window_energy(
    placement: Placement,
    cores: dict[str, np.ndarray],
    results: Results,
    messages: Messages,
    windows: dict[str, tuple[int, int]],
) -> dict[str, float]:
    program, synapse, soma = placement.program, 0.0, 0.0
    for placed in placement.populations:
        population, own = program[placed.name], np.unique(cores[placed.name])
        syn_ops = int(messages.syn_ops[np.isin(messages.target, own)].sum())
        synapse += syn_ops * results.prices[synapse_unit(program, population)]["energy_process_spike"]
        first, last = windows[placed.name]
        soma += float(results.neuron_energy[own, first - 1 : last].sum())
    columns, rows = hops(messages.source, messages.target)
    network = _network_energy(len(messages.step), int(columns.sum()), int(rows.sum()), results.prices)
    return {"synapse": synapse, "soma": soma, "network": network}


def _updated(
    placement: Placement,
    trains: Mapping[str, np.ndarray],
    cores: dict[str, np.ndarray],
    theirs: np.ndarray,
    windows: dict[str, tuple[int, int]],
) -> tuple[int, int, int]:
    """Count neurons updated in the windows, by our definition and by SANA-FE's, and those accessed."""
    activity = Activity(placement.program, trains)
    ours = sum(int(updated.sum()) for updated in activity.updated.values())
    found = accessed = 0
    for placed in placement.populations:
        first, last = windows[placed.name]
        own = theirs[first - 1 : last, np.unique(cores[placed.name])]
        found += int(own[..., COLUMN["updates"]].sum())
        accessed += int(own[..., COLUMN["accesses"]].sum())
    return ours, found, accessed


def _step_times(
    placement: Placement, trains: Mapping[str, np.ndarray], theirs: np.ndarray, tiles: int
) -> dict[str, np.ndarray]:
    """Evaluate our timing model of SANA-FE's Loihi on our counts, and its lower bound on SANA-FE's: µs (steps,) each."""
    model = next(model for model in known_timing_models() if model.name == TIMING_MODEL)
    spikes = {name: x for name, x in trains.items() if placement.program.sends_spikes(name)}
    counts = core_loads(placement, Activity(placement.program, spikes)).counts
    lower, estimate = step_times(model, placement, counts)
    return {
        "mksgn, lower bound": lower[0],
        "mksgn, estimate": estimate[0],
        "the lower bound on SANA-FE's counts": lower_bounds(model, theirs[None], tiles)[0],
    }


def _counts_of_run(placement: Placement, cores: dict[str, np.ndarray], results: Results) -> np.ndarray:
    """Count the events of SANA-FE's run by core and step, cores of inputs included: (steps, cores, EVENTS) int64."""
    program, messages = placement.program, results.messages
    counts = np.zeros((len(results.time), len(results.neuron_energy), len(EVENTS)), dtype=np.int64)
    step = messages.step - 1
    np.add.at(counts[..., COLUMN["messages_out"]], (step, messages.source), 1)
    np.add.at(counts[..., COLUMN["messages_in"]], (step, messages.target), 1)
    for placed in placement.populations:
        core_of = cores[placed.name]
        own, kind = np.unique(core_of), COLUMN[synapse_kind(program, program[placed.name])]
        into = np.isin(messages.target, own)
        np.add.at(counts[..., kind], (step[into], messages.target[into]), messages.syn_ops[into])
        fired = results.spikes.get(group_names(program)[placed.name], np.zeros((0, 2), dtype=np.int64))
        np.add.at(counts[..., COLUMN["spikes"]], (fired[:, 0] - 1, core_of[fired[:, 1]]), 1)
        counts[:, own, COLUMN["accesses"]] = np.bincount(core_of)[own]
        counts[:, own, COLUMN["updates"]] = _updates(results, counts[:, own], own)
    return counts


def _updates(results: Results, counts: np.ndarray, cores: np.ndarray) -> np.ndarray:
    """Derive how many neurons SANA-FE updated, which it does not print, from their energy: (steps, cores)."""
    soma = results.prices["loihi_lif"]
    left = results.neuron_energy[cores].T - counts[..., COLUMN["accesses"]] * soma["energy_access_neuron"]
    left = left - counts[..., COLUMN["spikes"]] * soma["energy_spike_out"]
    return np.rint(left / soma["energy_update_neuron"]).astype(np.int64)
