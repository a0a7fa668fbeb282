"""A program as a network of Lava Processes, one fused leaf per population or loop, run under the guard."""

from __future__ import annotations

import time
from collections.abc import Callable

import networkx
import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg

from mksgn.deploy.emulator import on_host
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.lava.guard.runtime import GuardedRuntime
from mksgn.deploy.lava.leaf_work import LeafWork, PopulationRecord
from mksgn.deploy.lava.messages import Layout
from mksgn.deploy.lava.processes.leaf import MAX_SOURCES, Leaf, Source
from mksgn.deploy.lava.sources import Frames
from mksgn.deploy.passes.schedule import run_length, schedule
from mksgn.deploy.program.program import Population, Program

SLOTS = 4  # clips side by side
SLOTS_LIMIT = 255
DEADLINE_S = 120.0  # without any progress; a step of the paper's widths takes well under a second
STEPS_PER_CALL = 64  # between two looks at the progress


def execute(
    program: Program,
    inputs: dict[str, np.ndarray],
    *,
    record: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
    slots: int = SLOTS,
) -> Execution:
    """Run a balanced program in Lava; `inputs[name]` is (clips, steps, *shape). Raises LavaRuntimeError with a Process's traceback."""
    clips, steps = next(iter(inputs.values())).shape[:2]
    slots = min(slots, clips)
    if slots > SLOTS_LIMIT:
        raise DeployError(f"slots ({slots}) exceed {SLOTS_LIMIT}: spikes of all slots are counted in bytes; take fewer")
    rounds = -(-clips // slots)
    windows = schedule(program, rounds, steps)
    given, host_counters = on_host(program, inputs)
    on_chip = {name: members for name, members in program.groups.items() if members[0].location == "chip"}
    if not on_chip:
        raise DeployError("nothing of this program runs on the chip; there is no population behind its spikes")
    shown = {output.population for output in program.outputs}
    layouts = _layouts(program, given, on_chip, slots)
    processes: dict[str, Source | Leaf] = {}
    for name, values in given.items():
        if name in layouts:
            frames = Frames(layouts[name], values, slots)
            processes[name] = Source(frames=frames, shape=layouts[name].shape, name=_process_name(name))
    works: dict[str, LeafWork] = {}
    senders = {name: _senders(program, members) for name, members in on_chip.items()}
    for name, members in on_chip.items():
        if len(senders[name]) > MAX_SOURCES:
            raise DeployError(
                f"population {name}: {len(senders[name])} sources exceed {MAX_SOURCES} of a leaf; put a population between them"
            )
        keep = {p.name for p in members if (record and p.fires) or p.name in shown}
        sources = [layouts[sender] for sender in senders[name]]
        works[name] = LeafWork(program, members, sources, layouts[name], windows[name], slots, clips, keep)
        processes[name] = Leaf(
            work=works[name],
            sources=[layout.shape for layout in sources],
            shape=layouts[name].shape,
            name=_process_name(name),
        )
    for name in on_chip:
        leaf = processes[name]
        assert isinstance(leaf, Leaf)
        for sender, port in zip(senders[name], leaf.ports, strict=False):
            processes[sender].s_out.connect(port)
    parts = _separate_networks(senders)
    seconds = 0.0
    for i, name in enumerate(parts):
        last = i == len(parts) - 1
        seconds += _run(program, processes[name], clips, slots, steps, progress if last else lambda clips: None)
    records = {name: each for work in works.values() for name, each in work.records.items()}
    return _execution(program, given, records, host_counters, clips, steps, seconds, record)


def _layouts(
    program: Program, given: dict[str, np.ndarray], on_chip: dict[str, tuple[Population, ...]], slots: int
) -> dict[str, Layout]:
    """What each sender's messages hold: of a leaf, the populations that other leaves read; the first where none is read."""
    read = {
        source
        for members in on_chip.values()
        for p in members
        for q in program.into(p.name)
        for source in q.sources
        if program[source].group != p.group
    }
    layouts = {name: Layout((program[name],), slots, program.precision) for name in given if name in read}
    for name, members in on_chip.items():
        sends = tuple(p for p in members if p.name in read) or members[:1]
        layouts[name] = Layout(sends, slots, program.precision)
    return layouts


def _senders(program: Program, members: tuple[Population, ...]) -> list[str]:
    """Leaves and host values that a leaf reads."""
    inside = members[0].group
    sources = [s for p in members for q in program.into(p.name) for s in q.sources if program[s].group != inside]
    on_host = {s for s in sources if program[s].location == "host" or program[s].kind == "input"}
    return list(dict.fromkeys(s if s in on_host else program[s].group for s in sources))


def _separate_networks(senders: dict[str, list[str]]) -> list[str]:
    """A leaf of each part that no connection joins to another; Lava compiles what hangs together with a Process."""
    graph = networkx.Graph()
    graph.add_nodes_from(senders)
    graph.add_edges_from((sender, leaf) for leaf, feeding in senders.items() for sender in feeding)
    return [next(name for name in sorted(part) if name in senders) for part in networkx.connected_components(graph)]


def _run(
    program: Program, process: Source | Leaf, clips: int, slots: int, steps: int, progress: Callable[[int], None]
) -> float:
    """Seconds of the run, without compiling and starting."""
    total = run_length(program, -(-clips // slots), steps)
    config = Loihi2SimCfg(select_tag="fixed_pt" if program.precision == "fixed" else "floating_pt")
    with GuardedRuntime(process, config, deadline_s=DEADLINE_S) as runtime:
        start, done = time.perf_counter(), 0
        for first in range(0, total, STEPS_PER_CALL):
            runtime.run(min(STEPS_PER_CALL, total - first))
            finished = min(clips, max(0, (first + STEPS_PER_CALL - program.latency) // steps) * slots)
            progress(finished - done)
            done = finished
        seconds = time.perf_counter() - start
    progress(clips - done)
    return seconds


def _execution(
    program: Program,
    given: dict[str, np.ndarray],
    records: dict[str, PopulationRecord],
    host_counters: dict[str, Counters],
    clips: int,
    steps: int,
    seconds: float,
    record: bool,
) -> Execution:
    execution = Execution("lava", program.precision, clips, steps, program.latency, seconds=seconds)
    for population in program.populations:
        name = population.name
        if name in records:
            execution.counters[name] = records[name].counters()
            if population.fires and record:
                execution.spikes[name] = records[name].spike_trains()
        else:
            execution.counters[name] = host_counters[name]
            if population.fires and record:
                execution.spikes[name] = given[name]
    for output in program.outputs:
        name = output.population
        if name in given:
            execution.outputs[output.name] = given[name].astype(np.float32)
        elif program[name].fires:
            execution.outputs[output.name] = records[name].spike_trains().astype(np.float32)
        else:
            execution.outputs[output.name] = records[name].outputs()
    add_updates(program, execution.counters, clips, steps)
    return execution


def _process_name(population: str) -> str:
    return population.replace(".", "_")
