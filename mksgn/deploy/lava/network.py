"""A program as a network of Lava Processes, one fused leaf per execution group, run under the guard."""

import time
from collections.abc import Callable

import networkx
import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg

from mksgn.deploy.emulator import on_host
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.lava.guard.runtime import GuardedRuntime
from mksgn.deploy.lava.guard.turns import turns
from mksgn.deploy.lava.leaf_work import LeafPlan
from mksgn.deploy.lava.messages import Layout
from mksgn.deploy.lava.process_models import TAGS, process_name
from mksgn.deploy.lava.processes.leaf import MAX_SOURCES, Leaf, Source
from mksgn.deploy.lava.results import SharedResults
from mksgn.deploy.lava.sources import Frames
from mksgn.deploy.passes.schedule import run_length, schedule
from mksgn.deploy.program.program import Population, Program

SLOTS = 4  # samples side by side
SLOTS_LIMIT = 255
DEADLINE_S = 120.0  # without any progress; a step at the paper's widths takes well under a second
STEPS_PER_CALL = 64  # between two reports of progress


@turns.take()
def execute(
    program: Program,
    inputs: dict[str, np.ndarray],
    *,
    record: bool = True,
    progress: Callable[[int], None] = lambda samples: None,
    slots: int = SLOTS,
) -> Execution:
    """Run a balanced program in Lava. Threads take turns.

    Args:
        program: its delays must be those of the balance pass.
        inputs: arrays (samples, steps, *shape) by input's name.
        record: whether to keep the spike trains.
        progress: called with the number of samples just finished.
        slots: samples that run side by side.

    Raises:
        LavaRuntimeError: a Process failed; it carries the Process's traceback.
        DeployError: too many slots or sources, or nothing of the program runs on the chip.
    """
    samples, steps = next(iter(inputs.values())).shape[:2]
    slots = min(slots, samples)
    if slots > SLOTS_LIMIT:
        raise DeployError(
            f"slots ({slots}) exceed {SLOTS_LIMIT}: the spikes of all slots are counted in one byte; use fewer"
        )
    windows = schedule(program, -(-samples // slots), steps)
    host_values, host_counters = on_host(program, inputs)
    on_chip = {name: members for name, members in program.groups.items() if members[0].location == "chip"}
    if not on_chip:
        raise DeployError(
            "no part of this program runs on the chip: no population follows its inputs; use the emulator"
        )
    outputs = {output.population for output in program.outputs}
    layouts = _layouts(program, host_values, on_chip, slots)
    senders = {name: _senders(program, members) for name, members in on_chip.items()}
    plans: dict[str, LeafPlan] = {}
    for name, members in on_chip.items():
        if len(senders[name]) > MAX_SOURCES:
            raise DeployError(
                f"population {name}: {len(senders[name])} sources exceed {MAX_SOURCES}, the limit of a leaf; "
                "put a population between them"
            )
        keep = {p.name for p in members if (record and p.fires) or p.name in outputs}
        sources = [layouts[sender] for sender in senders[name]]
        plans[name] = LeafPlan(program, members, sources, layouts[name], windows[name], slots, samples, keep)
    processes = _processes(host_values, layouts, plans, senders)
    networks = _separate_networks(senders)
    seconds = 0.0
    for i, name in enumerate(networks):
        last = i == len(networks) - 1
        seconds += _run(program, processes[name], samples, slots, steps, progress if last else lambda samples: None)
    results = {name: shared for plan in plans.values() for name, shared in plan.results.items()}
    execution = Execution("lava", program.precision, samples, steps, program.latency, seconds=seconds)
    _collect(execution, program, host_values, host_counters, results, record)
    add_updates(program, execution.counters, samples, steps)
    return execution


def _processes(
    host_values: dict[str, np.ndarray],
    layouts: dict[str, Layout],
    plans: dict[str, LeafPlan],
    senders: dict[str, list[str]],
) -> dict[str, Source | Leaf]:
    """Make the connected Processes: a Source for what the host sends, a Leaf for each execution group."""
    processes: dict[str, Source | Leaf] = {}
    for name, values in host_values.items():
        if name in layouts:
            frames = Frames(layouts[name], values)
            processes[name] = Source(frames=frames, shape=layouts[name].shape, name=process_name(name))
    leaves = {name: Leaf(plan=plan, name=process_name(name)) for name, plan in plans.items()}
    processes |= leaves
    for name, leaf in leaves.items():
        for sender, port in zip(senders[name], leaf.ports, strict=False):
            processes[sender].s_out.connect(port)
    return processes


def _layouts(
    program: Program, host_values: dict[str, np.ndarray], on_chip: dict[str, tuple[Population, ...]], slots: int
) -> dict[str, Layout]:
    """Lay out each sender's messages: for a leaf, the populations that others read, or its first if none is read."""
    read = {
        source
        for members in on_chip.values()
        for p in members
        for q in program.into(p.name)
        for source in q.sources
        if program[source].group != p.group
    }
    layouts = {name: Layout((program[name],), slots, program.precision) for name in host_values if name in read}
    for name, members in on_chip.items():
        sends = tuple(p for p in members if p.name in read) or members[:1]
        layouts[name] = Layout(sends, slots, program.precision)
    return layouts


def _senders(program: Program, members: tuple[Population, ...]) -> list[str]:
    """List the leaves and the host values that a leaf reads."""
    group = members[0].group
    sources = [s for p in members for q in program.into(p.name) for s in q.sources if program[s].group != group]
    on_host = {s for s in sources if program[s].location == "host" or program[s].kind == "input"}
    return list(dict.fromkeys(s if s in on_host else program[s].group for s in sources))


def _separate_networks(senders: dict[str, list[str]]) -> list[str]:
    """Name a leaf of each connected part; Lava compiles what is connected with a Process."""
    graph = networkx.Graph()
    graph.add_nodes_from(senders)
    graph.add_edges_from((sender, leaf) for leaf, names in senders.items() for sender in names)
    return [next(name for name in sorted(part) if name in senders) for part in networkx.connected_components(graph)]


def _run(
    program: Program, process: Source | Leaf, samples: int, slots: int, steps: int, progress: Callable[[int], None]
) -> float:
    """Run one connected part; return the seconds without compiling and starting."""
    total = run_length(program, -(-samples // slots), steps)
    latency = program.latency - program.unit_steps
    config = Loihi2SimCfg(select_tag=TAGS[program.precision])
    with GuardedRuntime(process, config, deadline_s=DEADLINE_S) as runtime:
        start, done = time.perf_counter(), 0
        for first in range(0, total, STEPS_PER_CALL):
            runtime.run(min(STEPS_PER_CALL, total - first))
            finished = min(samples, max(0, (first + STEPS_PER_CALL - latency) // steps) * slots)
            progress(finished - done)
            done = finished
        seconds = time.perf_counter() - start
    progress(samples - done)
    return seconds


def _collect(
    execution: Execution,
    program: Program,
    host_values: dict[str, np.ndarray],
    host_counters: dict[str, Counters],
    results: dict[str, SharedResults],
    record: bool,
) -> None:
    """Collect counters, spike trains and outputs in the execution, those of the leaves from shared memory."""
    for population in program.populations:
        name = population.name
        execution.counters[name] = results[name].counters() if name in results else host_counters[name]
        if population.fires and record:
            execution.spikes[name] = results[name].spike_trains() if name in results else host_values[name]
    for output in program.outputs:
        name = output.population
        if name in host_values:
            execution.outputs[output.name] = host_values[name].astype(np.float32)
        elif program[name].fires:
            execution.outputs[output.name] = results[name].spike_trains().astype(np.float32)
        else:
            execution.outputs[output.name] = results[name].outputs()
