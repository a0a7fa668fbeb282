"""An oracle that reads SANA-FE's network files and runs them as its documented models do, in NumPy.

models.cpp of SANA-FE 2.2.9: `input`, `current_based`, `accumulator_with_delay` and `leaky_integrate_fire`, with
the current of a step held back until the next. Nothing of mksgn.deploy is used.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

INPUT = "loihi_inputs"


def read(path: Path) -> dict[str, list[dict]]:
    """Return the attributes of each neuron by group, with its synapses as `out`: (group, neuron, weight, delay)."""
    file = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    network = file["network"]
    groups: dict[str, list[dict]] = {}
    for group in network["groups"]:
        neurons: dict[int, dict] = {}
        for entry in group["neurons"]:
            keys, own = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
            neurons |= {i: {**group["attributes"], **own, "out": []} for i in _range(keys)}
        groups[group["name"]] = [neurons[i] for i in range(len(neurons))]
    for edge in network["edges"] or []:
        ((ends, synapses),) = edge.items()
        source, target = ends.split(" -> ")
        delays = synapses.get("delay", [0] * len(synapses["weight"]))
        for (i, j), weight, delay in zip(synapses["source_target_pairs"], synapses["weight"], delays, strict=True):
            groups[source][i]["out"].append((target, j, weight, delay))
    for mapping in file["mappings"]:
        ((neurons, place),) = mapping.items()
        group, _, indices = neurons.partition(".")
        for i in _range(indices):
            assert "core" not in groups[group][i], f"{neurons}: mapped twice"
            groups[group][i]["core"] = place["core"]
    return groups


def _range(text: int | str) -> range:
    first, _, last = str(text).partition("..")
    return range(int(first), int(last or first) + 1)


def run_file(path: Path, steps: int) -> dict[str, set[tuple[int, int]]]:
    """Run a network file; return (step from 1, neuron) of each spike by group."""
    groups = read(path)
    potential = {name: np.array([n.get("potential", 0.0) for n in each]) for name, each in groups.items()}
    arriving: dict[int, dict[tuple[str, int], float]] = defaultdict(lambda: defaultdict(float))
    fired: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for step in range(1, steps + 1):
        for name, neurons in groups.items():
            for i, neuron in enumerate(neurons):
                if neuron["soma_hw_name"].startswith(INPUT):
                    spikes = step <= len(neuron["spikes"]) and neuron["spikes"][step - 1]
                else:
                    v = potential[name][i] * (1.0 if step == 1 else neuron["leak_decay"])
                    v = int(v * 64.0) / 64.0 + neuron.get("bias", 0.0) + arriving[step].get((name, i), 0.0)
                    spikes = v > neuron["threshold"]
                    potential[name][i] = 0.0 if spikes else v
                if spikes:
                    fired[name].add((step, i))
                    for target, j, weight, delay in neuron["out"]:
                        arriving[step + 1 + delay][target, j] += weight
    return fired
