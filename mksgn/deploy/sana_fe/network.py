"""Write a placed program and its input spikes as SANA-FE's network files (version 2, YAML).

There is a file per sample, because SANA-FE never resets: every sample starts a run. SANA-FE counts time
steps from 1. Population p handles step s of its sample (from 0) at step s + 1 + depth of p, as on the chip.

- Weights, thresholds and biases are in weight units. After the leak, SANA-FE truncates its float64 membranes
  toward zero to 1/64 of a unit, which is Loihi's sub-unit: with dv's leak (4096 - dv) / 4096 it computes
  the same integers, in float64.
- Inputs, and populations of the host that feed the chip, become neurons of the model `input` on cores of
  their own after the network's. Their messages cost as much as others; their neurons cost nothing.
- A bias acts from step 1 in SANA-FE. On Loihi, for a population of depth d, it acts only from step d + 1,
  where the host resets membranes. Until then an initial potential of -bias (step 1) and a neuron "hold", which
  fires with weight -bias at steps 1 … d - 1, keep the membrane at 0. They cost nothing in the sample's window.
- A population without a threshold gets one that no sum reaches.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mksgn.common.writing import replacing, write_text
from mksgn.deploy.emulator import host_values
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.chips import LOIHI1
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import Population, Program, SynapseKind
from mksgn.deploy.sana_fe.limits import INPUTS_PER_CORE, clipped, refusal, steps_of
from mksgn.deploy.sana_fe.synapses import synapses
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.loihi import DECAY_STEPS, SUB_UNITS

CORES_PER_TILE = 4
NEVER = 2**30  # a threshold beyond every 24-bit membrane, and within the 32-bit integers that SANA-FE reads
SYNAPSE_UNITS: dict[SynapseKind, str] = {
    "dense": "loihi_dense_synapse",
    "sparse": "loihi_sparse_synapse",
    "convolution": "loihi_conv_synapse",
}
FACTS_FILE = "network.json"
HOLD = "hold_"


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spike trains of input neurons: bool (samples, time steps, neurons)."""

    group: str
    trains: np.ndarray


def placed(program: Program) -> Placement:
    """Place a program on Loihi 1, for SANA-FE.

    Raises:
        DeployError: SANA-FE cannot run it; the reason in one line.
    """
    placement = place(program, LOIHI1)
    reason = refusal(placement, sum(program[name].size for name in chip_sources(program)) + len(_held(program)))
    if reason is not None:
        raise DeployError(f"SANA-FE: {reason}")
    return placement


def write_network(program: Program, inputs: Arrays, execution: Execution, folder: Path) -> list[Path]:
    """Write sample-0.yaml, sample-1.yaml … and network.json, which says how to run and to read them.

    Args:
        program: a balanced fixed-point program.
        inputs: (samples, steps, *input shape), or a dict of such arrays by input's name.
        execution: the program's run on them.
        folder: created if it does not exist.

    Returns:
        The network files.

    Raises:
        DeployError: SANA-FE cannot run the program or these inputs; the reason in one line.
    """
    placement = placed(program)
    if reason := clipped(program, execution):
        raise DeployError(f"SANA-FE: {reason}")
    names = group_names(program)
    sources = chip_sources(program)
    last = max((p.depth for p in program.populations if p.location == "chip"), default=0)
    values = host_values(program, arrays_by_input(inputs, [p.name for p in program.inputs], error=DeployError))
    trains = [Spikes(names[name], values[name].reshape(*values[name].shape[:2], -1)) for name in sources]
    trains += [_hold(names[p.name], p.depth, execution.samples) for p in _held(program)]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"sample-{i}.yaml" for i in range(execution.samples)]
    for sample, path in enumerate(files):
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for line in _lines(placement, names, trains, sample):
                file.write(line + "\n")
    facts = {
        "schema": "mksgn.sana_fe/1",
        "steps": execution.steps + last,
        "delays": has_delays(program),
        "populations": {
            name: {
                "group": group,
                "first_step": program[name].depth + 1,
                "last_step": program[name].depth + execution.steps,
            }
            for name, group in names.items()
        },
        "hold": [HOLD + names[p.name] for p in _held(program)],
    }
    write_text(folder / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
    return files


def chip_sources(program: Program) -> list[str]:
    """List the inputs and the host's populations whose spikes reach the chip."""
    sources = {
        name: None
        for q in program.projections
        if program[q.target].location == "chip"
        for name in q.sources
        if program[name].location == "host" or program[name].kind == "input"
    }
    return list(sources)


def group_names(program: Program) -> dict[str, str]:
    """Name the groups of inputs and of populations on the chip: SANA-FE allows no dots, spaces or arrows in names."""
    sources = chip_sources(program)
    named = [p.name for p in program.populations if p.name in sources or (p.location == "chip" and p.kind != "input")]
    return {name: f"p{i}_" + re.sub(r"\W", "_", name) for i, name in enumerate(named)}


def cores_of(placement: Placement) -> dict[str, np.ndarray]:
    """Return the core of each neuron of inputs and of populations on the chip, int64 (neurons,) by name."""
    cores = {placed.name: placed.core_of().reshape(-1) for placed in placement.populations}
    first = 0
    for name in chip_sources(placement.program):
        size = placement.program[name].size
        cores[name] = _input_cores(placement, first, size)
        first += size
    return cores


def _input_cores(placement: Placement, first: int, neurons: int) -> np.ndarray:
    return placement.cores + (first + np.arange(neurons)) // INPUTS_PER_CORE


def has_delays(program: Program) -> bool:
    return any(steps_of(program, q, 0) > 1 for q in program.projections if program[q.target].location == "chip")


def biases(population: Population) -> np.ndarray:
    """Biases in weight units, float64 (neurons,)."""
    if isinstance(population.neuron, FixedNeuron):
        bias = population.neuron.bias / SUB_UNITS
    else:
        bias = np.zeros(1) if population.bias is None else np.asarray(population.bias, dtype=np.float64)
    return np.broadcast_to(bias, population.shape).reshape(-1)


def synapse_kind(program: Program, population: Population) -> SynapseKind:
    """Return the kind of a population's synapses, which share one unit: sparse if its projections differ."""
    kinds = {q.synapse_kind for q in program.into(population.name)}
    return kinds.pop() if len(kinds) == 1 else "sparse"


def synapse_unit(program: Program, population: Population) -> str:
    """Name the unit of loihi.yaml that holds a population's synapses, with its price and latency."""
    return SYNAPSE_UNITS[synapse_kind(program, population)]


def _held(program: Program) -> list[Population]:
    """List the populations whose bias has to be held back for more than one step."""
    chip = (p for p in program.populations if p.location == "chip" and p.kind != "input")
    return [p for p in chip if p.depth > 1 and p.neuron is not None and biases(p).any()]


def _hold(group: str, depth: int, samples: int) -> Spikes:
    return Spikes(HOLD + group, np.ones((samples, depth - 1, 1), dtype=bool))


def _lines(placement: Placement, names: dict[str, str], trains: list[Spikes], sample: int) -> Iterator[str]:
    program = placement.program
    on_chip = [program[p.name] for p in placement.populations]
    yield "network:"
    yield "  name: mksgn"
    yield "  groups:"
    first = 0
    for spikes in trains:
        yield from _input_group(spikes, sample, first)
        first += spikes.trains.shape[2]
    dendrites = "loihi_dendrites_delay" if has_delays(program) else "loihi_dendrites"
    for population in on_chip:
        units = f"soma_hw_name: loihi_lif, dendrite_hw_name: {dendrites}, synapse_hw_name: {synapse_unit(program, population)}"
        yield from _group(population, names[population.name], units)
    yield "  edges:"
    for population in on_chip:
        yield from _edges(program, population, names)
    for population in _held(program):
        bias, name = biases(population), names[population.name]
        held = np.flatnonzero(bias)
        delay = 0 if has_delays(program) else None
        yield from _edge(HOLD + name, name, np.zeros_like(held), held, -bias[held], delay)
    yield "mappings:"
    cores = cores_of(placement)
    first = sum(program[name].size for name in chip_sources(program))
    for group in (spikes.group for spikes in trains if spikes.group.startswith(HOLD)):
        yield from _mapping(group, _input_cores(placement, first, 1))
        first += 1
    for name, group in names.items():
        yield from _mapping(group, cores[name])


def _input_group(spikes: Spikes, sample: int, first: int) -> Iterator[str]:
    """Write the neurons of an input; `first` counts the input neurons before them."""
    yield f"    - name: {spikes.group}"
    yield "      attributes: {log_spikes: true}"
    yield "      neurons:"
    for i, train in enumerate(spikes.trains[sample].T.astype(int)):
        unit = (first + i) % INPUTS_PER_CORE
        yield f'        - {i}: {{soma_hw_name: "loihi_inputs[{unit}]", spikes: [{", ".join(map(str, train))}]}}'


def _group(population: Population, name: str, units: str) -> Iterator[str]:
    values = _parameters(population)
    same = {key: x[0] for key, x in values.items() if (x == x[0]).all()}
    attributes = "".join(f", {key}: {_number(x)}" for key, x in same.items())
    yield f"    - name: {name}"
    yield f"      attributes: {{{units}, log_spikes: true, reset_mode: hard{attributes}}}"
    yield "      neurons:"
    columns = {key: x for key, x in values.items() if key not in same}
    for start, end in _runs(*columns.values(), length=population.size):
        each = ", ".join(f"{key}: {_number(x[start])}" for key, x in columns.items())
        yield f"        - {_range(start, end)}" + (f": {{{each}}}" if each else "")


def _parameters(population: Population) -> dict[str, np.ndarray]:
    """Return SANA-FE's attributes of each neuron: float64 (neurons,) by name."""
    neuron, bias = population.neuron, biases(population)
    dv, vth = (DECAY_STEPS, None) if neuron is None else (neuron.dv, neuron.vth)  # type: ignore[union-attr]
    leak = (DECAY_STEPS - np.asarray(dv, dtype=np.float64)) / DECAY_STEPS
    values = {"threshold": np.asarray(NEVER if vth is None else vth), "leak_decay": leak}
    parameters = {name: np.broadcast_to(x, population.shape).reshape(-1) for name, x in values.items()}
    if bias.any():
        parameters["bias"] = bias
        if population.depth:
            parameters["potential"] = -bias
    return parameters


def _edges(program: Program, population: Population, names: dict[str, str]) -> Iterator[str]:
    for projection in program.into(population.name):
        (source,) = projection.sources
        found = synapses(projection, program[source].shape)  # type: ignore[arg-type]
        delay = steps_of(program, projection, 0) - 1 if has_delays(program) else None
        yield from _edge(names[source], names[population.name], found.source, found.target, found.weight, delay)


def _edge(
    source: str, target: str, sources: np.ndarray, targets: np.ndarray, weights: np.ndarray, delay: int | None
) -> Iterator[str]:
    if not len(sources):
        return
    pairs = ", ".join(f"[{i}, {j}]" for i, j in zip(sources.tolist(), targets.tolist(), strict=True))
    yield f"    - {source} -> {target}:"
    yield "        type: sparse"
    yield f"        source_target_pairs: [{pairs}]"
    yield f"        weight: [{', '.join(map(_number, weights.tolist()))}]"
    if delay is not None:
        yield f"        delay: [{', '.join([str(delay)] * len(sources))}]"


def _mapping(group: str, cores: np.ndarray) -> Iterator[str]:
    for start, end in _runs(cores, length=len(cores)):
        tile, core = divmod(int(cores[start]), CORES_PER_TILE)
        yield f"  - {group}.{_range(start, end)}: {{core: {tile}.{core}}}"


def _runs(*columns: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of equal rows, as their first and last index."""
    change = np.zeros(max(length - 1, 0), dtype=bool)
    for column in columns:
        change |= column[1:] != column[:-1]
    starts = [0, *(np.flatnonzero(change) + 1).tolist(), length]
    for start, end in itertools.pairwise(starts):
        yield start, end - 1


def _range(start: int, end: int) -> str:
    return str(start) if start == end else f"{start}..{end}"


def _number(x: float) -> str:
    """Write a number exactly: integers without a point."""
    return str(int(x)) if float(x).is_integer() else repr(float(x))
