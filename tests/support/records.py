"""A hand-made run.json for tests: every figure small enough to check on paper."""

import copy
from typing import Any

KINDS = {"dense": 0, "sparse": 0, "convolution": 0}
CLIPS, STEPS, INPUTS, NEURONS = 4, 4, 20, 100
SYNAPSES = INPUTS * NEURONS
TOTALS = {
    "spikes": 200.0,
    "syn_ops": 3_000.0,
    "coincidences": 22.5,
    "neuron_updates": 1_212.0,
    "product_units": 400.0,
    "active_updates": 222.5,
    "host_macs": 10_000.0,
    "host_macs_every_step": 40_000.0,
    "graded_macs": 0.0,
    "host_to_chip_spikes_per_step": 25.0,
    "latency_steps": 3,
    "lanes": 1.0,
    "Effective_ACs": 2_875.0,
    "Effective_MACs": 10_000.0,
    "Dense": 19_200.0,
    "ActivationSparsity": 0.75,
    "ConnectionSparsity": 0.1,
    "Footprint": 12_345.0,
    "dendrite_updates": 1_212.0,
    "spikes_in": 747.5,
    "axon_out": 522.5,
}


def layer(name: str, **changes: Any) -> dict[str, Any]:
    """A chip layer of 100 neurons over 4 clips of 4 steps (one body): 1600 updates, 400 of them spikes."""
    row: dict[str, Any] = {
        "name": name,
        "kind": "conv",
        "place": "chip",
        "shape": [4, 5, 5],
        "neurons": 100,
        "spikes": 400,
        "firing_rate": 0.25,
        "input_rate": 0.5,
        "syn_ops": 7_000,
        "dense_ops": 16_000,
        "coincidences": 0,
        "neuron_updates": 1_600,
        "product_units": 0,
        "effective_acs": 6_500,
        "axon_out": 1_200,
        "spikes_in": 1_500,
        "cores": 1,
        "max_membrane": 812.0,
        "max_current": 1024.0,
        "silent_fraction": 0.02,
        "saturated_fraction": 0.01,
    }
    return {**row, **changes}


def small_run() -> dict[str, Any]:
    """A hand-made run of 4 clips: an encoder on the host, a convolution, a product and a read-out on the chip."""
    encoder = {"kind": "encoder", "place": "host", "input_rate": None, "syn_ops": 0, "effective_acs": 0}
    encoder |= {"axon_out": None, "spikes_in": None, "cores": None}
    product = {"kind": "product", "coincidences": 90, "input_rate": 0.25, "syn_ops": 4_400, "effective_acs": 4_400}
    product |= {"neuron_updates": 3_200, "product_units": 1_600, "axon_out": 890, "spikes_in": 690, "cores": 3}
    readout = {"kind": "readout", "shape": [3], "neurons": 3, "spikes": 0, "firing_rate": 0.0, "silent_fraction": 0.0}
    readout |= {"syn_ops": 600, "effective_acs": 600, "dense_ops": 4_800, "neuron_updates": 48, "axon_out": 0}
    readout |= {"spikes_in": 800, "saturated_fraction": 0.0}
    return {
        "schema": "mksgn.run/1",
        "model": {"file": "model.nir", "sha256": "a" * 64},
        "data": {"source": "synthetic", "split": "test", "clips": 4},
        "seed": 0,
        "environment": {"python": "3.10.14", "torch": "2.3.1", "nir": "1.0.8", "platform": "Linux"},
        "parents": ["b" * 64],
        "execution": {
            "backend": "lava",
            "precision": "fixed",
            "steps": 4,
            "latency_steps": 3,
            "seconds": 2.0,
            "clips_per_second": 2.0,
            "repeats": 3,
            "seconds_min": 1.9,
            "seconds_max": 2.5,
        },
        "accuracy": {
            "top1": 0.75,
            "correct": 3,
            "per_class": {"wave": 1.0, "sit down": 0.5, "throw": None},
            "confusion": [[2, 0, 0], [0, 1, 1], [0, 0, 0]],
        },
        "layers": [
            layer("encoder", **{**encoder, "dense_ops": 40_000}),
            layer("blocks.0.conv"),
            layer("blocks.0.attention.m", **product),
            layer("readout", **readout),
        ],
        "totals": dict(TOTALS),
        "energy": [],
        "claims": [],
        "parity": {"against": "torch", "decisions": 4_800, "mismatches": 0, "first": None},
        "placement": {
            "chip": "loihi2",
            "cores": 5,
            "chips": 1,
            "limits": [
                {"name": "neurons per core", "value": 100, "max": 8192},
                {"name": "output axons per core", "value": 12, "max": None},
            ],
        },
        "gcn": {"preset": "demo", "streams": ["joint", "bone"], "layers": 10, "parameters": 5_000, "macs": 2_000_000.0},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small run with one field replaced; numbers in the path index lists."""
    run = copy.deepcopy(small_run())
    parent: Any = run
    *parents, last = path.split(".")
    for part in parents:
        parent = parent[int(part)] if part.isdigit() else parent[part]
    parent[last] = value
    return run


def dense_run(arrived: int) -> dict[str, Any]:
    """One dense layer of 100 neurons and 20 inputs, into which `arrived` spikes come over the run, and an idle host."""
    run = small_run()
    encoder, layer = run["layers"][:2]
    syn_ops = arrived * NEURONS
    sizes = {"weights": SYNAPSES, "weight_bytes": 1, "biases": 0, "inputs": INPUTS, "dense_inputs": INPUTS}
    memory = {
        **sizes, "synapses": {**KINDS, "dense": SYNAPSES}, "arrivals": {**KINDS, "dense": arrived},
        "weight_reads": syn_ops, "weighted_synapses": SYNAPSES,
    }  # fmt: skip
    layer |= {
        "syn_ops": syn_ops, "effective_acs": syn_ops, "dense_ops": SYNAPSES * STEPS * CLIPS, "spikes": 0,
        "syn_ops_by_kind": {**KINDS, "dense": syn_ops}, "memory": memory, "neuron_updates": NEURONS * STEPS * CLIPS,
    }  # fmt: skip
    nothing = {"weights": 0, "biases": 0, "inputs": 0, "dense_inputs": 0, "weight_reads": 0, "weighted_synapses": 0}
    encoder |= {"dense_ops": 0, "syn_ops_by_kind": KINDS, "spikes": 0}
    encoder["memory"] = {**nothing, "synapses": KINDS, "arrivals": KINDS, "weight_bytes": 4}
    encoder |= {"neurons": INPUTS, "shape": [INPUTS], "neuron_updates": INPUTS * STEPS * CLIPS}
    return {**run, "layers": [encoder, layer]}
