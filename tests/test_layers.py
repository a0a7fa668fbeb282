"""Each layer beside the slow, obvious version of its equation: loops over steps, frames, joints and channels, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.train.layers import SASGC, SMF, SSC, STC, GraphConvBN, SpikingSelfAttention
from mksgn.train.skeletons import adjacency_subsets, graph

MARGIN = 1e-5  # nearer to the threshold, float32 may decide otherwise than float64
TAU = 2.0


# The equations, as the paper's notes give them


def convolve(x, weight, stride=1, padding=(0, 0)):
    """(N, C, T, V) with (O, C, kt, kv) → (N, O, T', V): zero-padded, the stride along time."""
    N, C, T, V = x.shape
    O, _, kt, kv = weight.shape
    out = np.zeros((N, O, (T + 2 * padding[0] - kt) // stride + 1, V + 2 * padding[1] - kv + 1))
    for n, o, t, v in np.ndindex(*out.shape):
        for c, a, b in itertools.product(range(C), range(kt), range(kv)):
            i, j = t * stride + a - padding[0], v + b - padding[1]
            if 0 <= i < T and 0 <= j < V:
                out[n, o, t, v] += weight[o, c, a, b] * x[n, c, i, j]
    return out


def normalise(x, bn):
    """Batch norm at inference: constants of the running statistics."""
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        mean, var = float(bn.running_mean[c]), float(bn.running_var[c])
        out[:, c] = (x[:, c] - mean) / math.sqrt(var + bn.eps) * float(bn.weight[c]) + float(bn.bias[c])
    return out


def graph_convolve(x, adjacency, weight):
    """sum_k A_k^T X W_k: (N, C, T, V), A[k, i, j] from source i to target j, weight (O, C, K) → (N, O, T, V)."""
    N, C, T, V = x.shape
    O, _, K = weight.shape
    out = np.zeros((N, O, T, V))
    for n, o, t, target in np.ndindex(N, O, T, V):
        for k, c, source in np.ndindex(K, C, V):
            out[n, o, t, target] += weight[o, c, k] * adjacency[k, source, target] * x[n, c, t, source]
    return out


def membrane(current, threshold=1.0):
    """(S, ...) current → spikes, and the distance of each h from the threshold, the least so far of its neuron."""
    v, nearest = np.zeros(current.shape[1:]), np.full(current.shape[1:], np.inf)
    spikes, margins = np.zeros_like(current), np.zeros_like(current)
    for t in range(len(current)):
        h = v + (current[t] - v) / TAU
        spikes[t] = h >= threshold
        v = h * (1 - spikes[t])
        nearest = np.minimum(nearest, np.abs(h - threshold))
        margins[t] = nearest
    return spikes, margins


def mutual_information(a, b):
    """Plug-in, in nats, of two binary sequences."""
    total = 0.0
    for x, y in itertools.product((0, 1), repeat=2):
        both, left, right = np.mean((a == x) & (b == y)), np.mean(a == x), np.mean(b == y)
        if both > 0:
            total += both * math.log(both / (left * right))
    return total


def attention_current(first, second, gain, transpose):
    """Per head and frame, gain * first @ second (or its transpose), in loops: (S, L, H, T, a, b), (S, L, H, T, b or V, ..)."""
    second = second.swapaxes(-1, -2) if transpose else second
    out = np.zeros((*first.shape[:-1], second.shape[-1]))
    for s, n, h, t, i, j in np.ndindex(*out.shape):
        out[s, n, h, t, i, j] = gain[h] * sum(
            first[s, n, h, t, i, k] * second[s, n, h, t, k, j] for k in range(first.shape[-1])
        )
    return out
