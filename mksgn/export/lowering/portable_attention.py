"""Spiking self-attention in stock primitives: a product of two spikes is a neuron without memory.

Its threshold is 1.5, and the two spikes add up in it. The population "qkv" and the node "attention" become, for each
head h of d channels, with T frames and V joints,

    qkv_q<h>, qkv_k<h>, qkv_v<h>   (d, T, V)     LIF, each with its channels of the convolution
    attention_qk<h>                (d, T, V V)   a product for each channel, query and key
    attention_m<h>                 (1, T, V V)   the map; a Conv2d sums the channels
    attention_mv<h>                (d, T, V V)   a product of the map and v
    attention_z<h>                 (d, T, V)     a Linear sums over the keys

and what reads z becomes one convolution per head. Linear nodes of 0 and 1 on the last axis spread q, k and v over all
pairs. The heads are separate because SpikingJelly takes one threshold per population. With dt/tau = 4095/4096, the
largest decay in Loihi's 12 bits, a unit keeps 1/4096 of its membrane: 1 + 1/4096 never exceeds 1.5, 2 always does. Such
units also serve Loihi 1, which has no products.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import nir
import numpy as np

from mksgn.export.errors import NotPortableError
from mksgn.export.graph.nodes import SpikingSelfAttention, f32
from mksgn.export.graph.paths import source_shape
from mksgn.export.loihi import DECAY_STEPS
from mksgn.export.quantization.scales import PopulationScale

PARTS = ("q", "k", "v")
MOST_UNITS = 4_000_000  # per network: every simulator keeps the membrane of each, for every sample
PRODUCT_EXPONENT = -1  # weights of 1 are 2 units, the least that a chip's synapse holds

Nodes = dict[str, nir.NIRNode]
Edges = list[tuple[str, str]]


def product_units(graph: nir.NIRGraph) -> int:
    """Count the product units of the portable form of a graph's attention: 2 C T V V for each node.

    Raises:
        NotPortableError: More than MOST_UNITS.
    """
    shapes = [source_shape(graph, name) for name, node in graph.nodes.items() if isinstance(node, SpikingSelfAttention)]
    units = sum(2 * channels * frames * joints**2 for channels, frames, joints in shapes)
    if units > MOST_UNITS:
        raise NotPortableError(
            f"attention in stock primitives: {units:,} product units, more than {MOST_UNITS:,}; export with --profile "
            "structured, or train a narrower student, fewer frames, or attention: none"
        )
    return units


def expand(name: str, nodes: Nodes, edges: Edges, dt: float) -> Edges:
    """Replace an attention node and its population of q|k|v spikes in `nodes`; return the rewired edges.

    `dt` is the time step in seconds, from which the units' time constant follows.

    Raises:
        NotPortableError: The attention does not follow a population of its own, or nodes other than convolutions
            come before or after it.
    """
    node = nodes[name]
    assert isinstance(node, SpikingSelfAttention)
    (qkv,) = (source for source, target in edges if target == name)
    before, after = ([b for a, b in _turned(edges) if a == qkv], [b for a, b in edges if a == name])
    alone = [target for source, target in edges if source == qkv] == [name]
    if not (
        alone and isinstance(nodes[qkv], nir.LIF) and all(isinstance(nodes[c], nir.Conv2d) for c in before + after)
    ):
        raise NotPortableError(
            f"{name}: needs a LIF of its own for q|k|v, and convolutions before that and after it; export with "
            "--profile structured"
        )
    population = nodes.pop(qkv)
    channels, frames, joints = population.v_threshold.shape
    width, pairs = channels // 3 // node.heads, (frames, joints**2)
    edges = [edge for edge in edges if qkv not in edge]
    parts = [f"{part}{h}" for part in PARTS for h in range(node.heads)]
    for conv in before:
        edges = _split_outputs(conv, [(f"{conv}_{part}", f"{qkv}_{part}") for part in parts], nodes, edges)
    fields = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    shares = (np.split(getattr(population, field), len(parts)) for field in fields)
    for part, *values in zip(parts, *shares, strict=True):
        nodes[f"{qkv}_{part}"] = nir.LIF(*(f32(value) for value in values))
    for conv in after:
        edges = _split_inputs(conv, [f"{name}_z{h}" for h in range(node.heads)], nodes, edges)
    # for pairs (query, key), numbered query · V + key
    one, each = np.ones((joints, 1)), np.eye(joints)
    query, key = f32(np.kron(each, one)), f32(np.kron(one, each))
    # a gain scales the currents that a threshold is compared with
    thresholds = node.threshold_m / node.gain_m, node.threshold_z / node.gain_z
    for h, (threshold_m, threshold_z) in enumerate(zip(*thresholds, strict=True)):
        new = {
            "query": nir.Linear(query),
            "key": nir.Linear(key),
            "qk": _product_units((width, *pairs), dt),
            "channels": _convolution(np.ones((1, width, 1, 1)), pairs),
            "m": _lif(threshold_m, (1, *pairs), node.tau),
            "map": _convolution(np.ones((width, 1, 1, 1)), pairs),
            "value": nir.Linear(key),
            "mv": _product_units((width, *pairs), dt),
            "keys": nir.Linear(f32(query.T)),
            "z": _lif(threshold_z, (width, frames, joints), node.tau),
        }
        nodes |= {f"{name}_{key}{h}": value for key, value in new.items()}
        chain = ("qk", "channels", "m", "map", "mv", "keys", "z")
        inner = [*itertools.pairwise(chain), ("query", "qk"), ("key", "qk"), ("value", "mv")]
        edges += [(f"{name}_{a}{h}", f"{name}_{b}{h}") for a, b in inner]
        for part, spread in zip(PARTS, ("query", "key", "value"), strict=True):
            edges.append((f"{qkv}_{part}{h}", f"{name}_{spread}{h}"))
    del nodes[name]
    return [edge for edge in edges if name not in edge]


def _turned(edges: Edges) -> Edges:
    return [(target, source) for source, target in edges]


def _split_outputs(conv: str, parts: Edges, nodes: Nodes, edges: Edges) -> Edges:
    """Replace a convolution with one per pair (its name, its target), with equal shares of the output channels."""
    node = nodes.pop(conv)
    before = [source for source, target in edges if target == conv]
    shares = zip(parts, np.split(node.weight, len(parts)), np.split(node.bias, len(parts)), strict=True)
    for (own, target), weight, bias in shares:
        nodes[own] = _like(node, weight, bias)
        edges = [*edges, *((source, own) for source in before), (own, target)]
    return [edge for edge in edges if conv not in edge]


def _split_inputs(conv: str, sources: list[str], nodes: Nodes, edges: Edges) -> Edges:
    """Replace a convolution with one per source, with equal shares of the input channels; the first has the bias."""
    node = nodes.pop(conv)
    after = [target for source, target in edges if source == conv]
    for h, (source, weight) in enumerate(zip(sources, np.split(node.weight, len(sources), axis=1), strict=True)):
        own = f"{conv}_{h}"
        nodes[own] = _like(node, weight, np.zeros_like(node.bias) if h else node.bias)
        edges = [*edges, (source, own), *((own, target) for target in after)]
    return [edge for edge in edges if conv not in edge]


def _like(node: nir.Conv2d, weight: np.ndarray, bias: np.ndarray) -> nir.Conv2d:
    return nir.Conv2d(node.input_shape, f32(weight), node.stride, node.padding, node.dilation, node.groups, f32(bias))


def _convolution(weight: np.ndarray, shape: tuple[int, ...]) -> nir.Conv2d:
    return nir.Conv2d(shape, f32(weight), (1, 1), (0, 0), (1, 1), 1, np.zeros(len(weight), np.float32))


def _lif(threshold: float, shape: tuple[int, ...], tau: Any) -> nir.LIF:
    return nir.LIF(*(np.full(shape, value, np.float32) for value in (tau, 1, 0, threshold, 0)))


def _product_units(shape: tuple[int, ...], dt: float) -> nir.LIF:
    """Make units whose membrane is 4095/4096 of their input, and whose threshold is 4095/4096 of 1.5."""
    rate = (DECAY_STEPS - 1) / DECAY_STEPS
    return _lif(1.5 * rate, shape, np.float32(dt / rate))


def scales(graph: nir.NIRGraph, quantization: str) -> str:
    """Return the quantiser's metadata under the names of the portable form."""
    entries = json.loads(quantization)
    populations = entries["populations"]
    product = asdict(PopulationScale(PRODUCT_EXPONENT, 2.0**-PRODUCT_EXPONENT, "product units", 0))
    for name, qkv, heads in _attention(graph):
        old = {"q": qkv, "k": qkv, "v": qkv, "m": f"{name}.m", "z": f"{name}.z"}
        found = {part: populations[population] for part, population in old.items()} | {"qk": product, "mv": product}
        for population in {*old.values()}:
            del populations[population]
        for part, scale in found.items():
            populations |= {f"{qkv if part in PARTS else name}_{part}{h}": scale for h in range(heads)}
    return json.dumps(entries)


def structured_spikes(graph: nir.NIRGraph, spikes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Map the portable form's spikes (L, S, *shape) to a structured `graph`'s populations, without the products."""
    spikes = dict(spikes)
    for name, qkv, heads in _attention(graph):
        spikes[qkv] = np.concatenate([spikes.pop(f"{qkv}_{part}{h}") for part in PARTS for h in range(heads)], 2)
        m, z = (np.concatenate([spikes.pop(f"{name}_{part}{h}") for h in range(heads)], 2) for part in "mz")
        spikes |= {f"{name}.m": m.reshape(*m.shape[:-1], z.shape[-1], z.shape[-1]), f"{name}.z": z}
        for product in (f"{name}_{part}{h}" for part in ("qk", "mv") for h in range(heads)):
            del spikes[product]
    return spikes


def _attention(graph: nir.NIRGraph) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the population of q|k|v and the number of heads of each attention node."""
    for name, node in graph.nodes.items():
        if isinstance(node, SpikingSelfAttention):
            (qkv,) = (source for source, target in graph.edges if target == name)
            yield name, qkv, node.heads
