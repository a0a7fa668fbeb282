"""Each layer beside the slow, obvious version of its equation: loops over steps, frames, joints and
channels, in float64."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.train.layers import (
    SASGC,
    SMF,
    SSC,
    STC,
    ConvBN,
    GraphConvBN,
    SpikingSelfAttention,
    SpikingTokenAttention,
    init_bn_biases,
    mutual_information,
)
from mksgn.train.neurons import summed
from mksgn.train.skeletons import adjacency_subsets, graph
from tests.support.tiers import examples

MARGIN = 1e-5  # nearer to the threshold than this, float32 may decide otherwise than float64
TAU = 2.0

few = settings(max_examples=examples(20), deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


# The equations, one sum at a time


def convolve(x, weight, stride=1):
    """(N, C, T, V) and (O, C, kt, kv) → (N, O, T', V): as many zeros around as keep the shape,
    stride along time."""
    n_samples, channels, frames, joints = x.shape
    outputs, _, kt, kv = weight.shape
    out = np.zeros((n_samples, outputs, (frames - 1) // stride + 1, joints))
    for n, o, t, v in np.ndindex(*out.shape):
        for c, a, b in itertools.product(range(channels), range(kt), range(kv)):
            i, j = t * stride + a - kt // 2, v + b - kv // 2
            if 0 <= i < frames and 0 <= j < joints:
                out[n, o, t, v] += weight[o, c, a, b] * x[n, c, i, j]
    return out


def normalise(x, bn):
    """Batch norm at inference: a constant scale and shift per channel of (N, C, T, V)."""
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        scale = float(bn.weight[c]) / math.sqrt(float(bn.running_var[c]) + bn.eps)
        out[:, c] = (x[:, c] - float(bn.running_mean[c])) * scale + float(bn.bias[c])
    return out


def conv_bn(x, module, stride=1):
    """BN(Conv(x)) of each step of (S, L, C, T, V)."""
    return np.stack([normalise(convolve(step, array(module.conv.weight), stride), module.bn) for step in x])


def graph_convolve(x, adjacency, weight):
    """sum_k A_k^T X W_k: x (N, C, T, V), A[k, source, target], W (O, C, K) → (N, O, T, V)."""
    n_samples, channels, frames, joints = x.shape
    outputs, _, subsets = weight.shape
    out = np.zeros((n_samples, outputs, frames, joints))
    for n, o, t, target in np.ndindex(*out.shape):
        for k, c, source in np.ndindex(subsets, channels, joints):
            out[n, o, t, target] += weight[o, c, k] * adjacency[k, source, target] * x[n, c, t, source]
    return out


def graph_conv_bn(x, module):
    """The same with its batch norm, at each step of (S, L, C, T, V); learnable A_k, masked."""
    adjacency, weight = array(module.adjacency) * array(module.mask), array(module.weight)[..., 0]
    return np.stack([normalise(graph_convolve(step, adjacency, weight), module.bn) for step in x])


def map_current(q, k, gain):
    """g_m Q K^T: (S, L, C, T, V) twice → (S, L, heads, T, query, key); channel = head * d + i."""
    steps, n_bodies, channels, frames, joints = q.shape
    depth = channels // len(gain)
    out = np.zeros((steps, n_bodies, len(gain), frames, joints, joints))
    for s, n, h, t, query, key in np.ndindex(*out.shape):
        for i in range(depth):
            out[s, n, h, t, query, key] += gain[h] * q[s, n, h * depth + i, t, query] * k[s, n, h * depth + i, t, key]
    return out


def token_current(q, heads):
    """4/d sum_i Q_i: (S, L, C, T, V) → (S, L, heads, T, V)."""
    steps, n_bodies, channels, frames, joints = q.shape
    depth = channels // heads
    out = np.zeros((steps, n_bodies, heads, frames, joints))
    for s, n, h, t, v in np.ndindex(*out.shape):
        for i in range(depth):
            out[s, n, h, t, v] += 4 / depth * q[s, n, h * depth + i, t, v]
    return out


def gated(m, k):
    """M AND K: (S, L, heads, T, V) and (S, L, C, T, V) → (S, L, C, T, V)."""
    out = np.zeros(k.shape)
    for s, n, c, t, v in np.ndindex(*out.shape):
        out[s, n, c, t, v] = float(k[s, n, c, t, v] and m[s, n, c // (k.shape[2] // m.shape[2]), t, v])
    return out


def value_current(m, v, gain):
    """g_z M V: a map (S, L, heads, T, query, key) and (S, L, C, T, V) → (S, L, C, T, V)."""
    out = np.zeros(v.shape)
    depth, joints = v.shape[2] // len(gain), v.shape[4]
    for s, n, c, t, query in np.ndindex(*out.shape):
        h = c // depth
        for key in range(joints):
            out[s, n, c, t, query] += gain[h] * m[s, n, h, t, query, key] * v[s, n, c, t, key]
    return out


def information_of(a, b):
    """Plug-in mutual information, in nats, of two binary sequences; 0 log 0 = 0."""
    total = 0.0
    for x, y in itertools.product((0, 1), repeat=2):
        both, left, right = np.mean((a == x) & (b == y)), np.mean(a == x), np.mean(b == y)
        if both > 0:
            total += both * math.log(both / (left * right))
    return total


def stream_information(p):
    """sum_{j != i} I_ij of spikes (S, L, streams, C0, T, V): over steps, frames, joints; mean over
    channels and bodies."""
    _, n_bodies, streams, channels, _, _ = p.shape
    total = np.zeros(streams)
    for i, j, n, c in np.ndindex(streams, streams, n_bodies, channels):
        if i != j:
            total[i] += information_of(p[:, n, i, c].ravel(), p[:, n, j, c].ravel()) / (n_bodies * channels)
    return total


def assert_neuron(current, spikes, margin=MARGIN):
    """`spikes` are those of a membrane with tau 2, threshold 1 and hard reset, wherever rounding
    cannot flip a decision: at more than `margin` from the threshold; -1 where nothing is rounded."""
    current, spikes = np.asarray(current), array(spikes)
    assert current.shape == spikes.shape
    assert set(np.unique(spikes)) <= {0.0, 1.0}
    v, clear = np.zeros(current.shape[1:]), np.ones(current.shape[1:], dtype=bool)
    for t in range(len(current)):
        h = v + (current[t] - v) / TAU
        s = np.where(h >= 1.0, 1.0, 0.0)
        clear &= np.abs(h - 1.0) > margin  # and no later one that leans on an unclear reset
        np.testing.assert_array_equal(spikes[t][clear], s[clear])
        v = h * (1.0 - s)
    assert clear.mean() > 0.98, "too few decisions away from the threshold: the comparison says nothing"


# Help for the tests


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def scramble(module, seed):
    """In inference mode, with batch norms that have seen something."""
    generator = torch.Generator().manual_seed(seed)
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.running_mean.normal_(0.0, 0.3, generator=generator)
            bn.running_var.uniform_(0.3, 2.0, generator=generator)
            nn.init.uniform_(bn.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(bn.bias, 0.4, 0.3, generator=generator)
    return module.eval()


def random_spikes(seed, *shape, rate=0.4):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def random_adjacency(seed, subsets, joints):
    """A third of the edges, weights of either direction told apart."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(subsets, joints, joints, generator=generator) + 0.2
    return weight * (torch.rand(subsets, joints, joints, generator=generator) < 0.4)


def total(currents):
    """The current, without a second update of the running statistics."""
    return summed(copy.deepcopy(currents))


@torch.no_grad()
def run(layer, *inputs):
    """Output, spikes by the name handed to `record`, and the current into each LIF of the layer, by
    module name."""
    record, currents, hooks = {}, {}, []
    for name, module in layer.named_modules():
        if type(module).__name__ == "LIF":
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: currents.__setitem__(name, total(x))))
    out = layer(*inputs, record.__setitem__)
    for hook in hooks:
        hook.remove()
    return out, record, currents


def assert_population(expected_current, current, spikes):
    np.testing.assert_allclose(array(current), expected_current, rtol=1e-5, atol=3e-6)
    assert_neuron(expected_current, spikes)


# SSC


@few
@given(
    seed=seeds, streams=st.integers(1, 4), channels=st.integers(1, 3), steps=st.integers(1, 4),
    frames=st.integers(1, 4),
    joints=st.integers(1, 4),
)  # fmt: skip
def test_ssc_codes_each_stream_by_its_own_padded_convolution(seed, streams, channels, steps, frames, joints):
    torch.manual_seed(seed)
    layer = scramble(SSC(streams, channels, steps, TAU), seed)
    x = torch.randn(2, 3 * streams, frames, joints)
    out, record, currents = run(layer, x)
    weight = array(layer.conv.weight)  # (streams * channels, 3, 3, 3)
    branches = [
        convolve(array(x)[:, 3 * i : 3 * i + 3], weight[i * channels : (i + 1) * channels]) for i in range(streams)
    ]
    current = normalise(np.concatenate(branches, axis=1), layer.bn)
    assert_population(np.stack([current] * steps), currents["sn"], out)
    assert list(record) == ["ssc"]
    assert record["ssc"] is out
    assert out.shape == (steps, 2, streams * channels, frames, joints)


def test_ssc_current_is_one_and_the_same_at_all_steps():
    """Charged to the membrane at every step: a neuron of current 1.2 fires at the third step of
    0.6, 0.9, 1.05 only."""
    layer = SSC(4, 2, 4, TAU).eval()
    nn.init.zeros_(layer.conv.weight)
    nn.init.constant_(layer.bn.bias, 1.2)
    out, _, currents = run(layer, torch.randn(1, 12, 3, 5))
    assert all(torch.equal(step, currents["sn"][0]) for step in currents["sn"])
    np.testing.assert_array_equal(array(out).mean((1, 2, 3, 4)), [0, 0, 1, 0])


def test_ssc_streams_do_not_mix():
    torch.manual_seed(0)
    layer = scramble(SSC(4, 3, 2, TAU), 1)
    x = torch.randn(1, 12, 4, 5)
    base = run(layer, x)[2]["sn"]
    for i in range(4):
        changed = x.clone()
        changed[:, 3 * i : 3 * i + 3] += 1.0
        moved = (run(layer, changed)[2]["sn"] != base).flatten(3).any(-1)[0, 0]
        assert moved.tolist() == [i * 3 <= c < i * 3 + 3 for c in range(12)]


# SMF


@few
@given(seed=seeds, streams=st.integers(2, 4), channels=st.integers(1, 2), n_bodies=st.integers(1, 2))
def test_smf_at_inference_weighs_by_the_running_information(seed, streams, channels, n_bodies):
    torch.manual_seed(seed)
    layer = scramble(SMF(streams, channels, 3, TAU), seed)
    layer.information.uniform_(0.0, 1.0)
    nn.init.constant_(layer.g, 1.3)
    nn.init.normal_(layer.b)
    before = layer.information.clone()
    p = random_spikes(seed, 3, n_bodies, streams * channels, 3, 3)
    out, record, currents = run(layer, p)
    exponents = [math.exp(1.3 * float(layer.information[i]) + float(layer.b[i])) for i in range(streams)]
    fused = np.zeros((3, n_bodies, channels, 3, 3))
    for i in range(streams):
        for c in range(channels):  # stream after stream in the channels of P
            fused[:, :, c] += streams * exponents[i] / sum(exponents) * array(p)[:, :, i * channels + c]
    assert_population(conv_bn(fused, layer.current), currents["sn"], out)
    assert list(record) == ["smf"]
    assert torch.equal(layer.information, before)


@few
@given(seed=seeds, streams=st.integers(2, 4), channels=st.integers(1, 3), n_bodies=st.integers(1, 3))
def test_smf_measures_the_information_between_streams(seed, streams, channels, n_bodies):
    common = random_spikes(seed, 2, n_bodies, 1, channels, 4, 5, rate=0.5)
    own = random_spikes(seed + 1, 2, n_bodies, streams, channels, 4, 5, rate=0.3)
    take = random_spikes(seed + 2, 2, n_bodies, streams, channels, 4, 5, rate=0.6)
    p = torch.where(take > 0, common, own)
    # the floor of 1e-6 under each probability moves a term by at most 1e-6 log 1e6, and there are
    # streams * 4 of them
    expected = stream_information(array(p))
    np.testing.assert_allclose(array(SMF(streams, channels, 2, TAU).measure(p)), expected, rtol=1e-4, atol=4e-4)


def test_information_of_textbook_pairs():
    """A copy and its complement tell all (log 2), an independent stream and a silent one
    nothing."""
    sequences = np.array(
        [[0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=float
    )
    joint = torch.from_numpy(sequences @ sequences.T / 4)
    found = mutual_information(joint).numpy()
    for i, j in np.ndindex(6, 6):
        expected = information_of(sequences[i], sequences[j])
        assert found[i, j] == pytest.approx(expected, abs=4e-5)
        assert math.isclose(expected, math.log(2) if {i, j} <= {0, 1, 2} or i == j == 3 else 0.0, abs_tol=1e-12)


def test_smf_information_ignores_what_a_stream_tells_of_itself():
    p = random_spikes(0, 4, 2, 3, 1, 4, 5, rate=0.5)
    p[:, :, 1] = p[:, :, 0]  # streams 0 and 1 are copies, 2 is on its own
    found = SMF(3, 1, 2, TAU).measure(p)
    assert found[0] == found[1]
    assert found[2] < 0.1 < 0.6 < found[0] < math.log(2) + 0.1


def test_smf_training_weighs_by_the_batch_and_keeps_a_running_mean_as_batch_norm_does():
    torch.manual_seed(0)
    layer = scramble(SMF(3, 2, 4, TAU), 0)
    layer.training = True  # of the fusion alone: the batch norm keeps its constants
    bn, running = nn.BatchNorm1d(3), np.zeros(3)
    assert torch.equal(layer.information, bn.running_mean)
    for seed in (1, 2):
        p = random_spikes(seed, 2, 2, 6, 3, 4, rate=0.5)
        p[:, :, 4:] = p[:, :, :2]  # stream 2 repeats stream 0
        out, _, currents = run(layer, p)
        information = stream_information(array(p.unflatten(2, (3, 2))))
        running = (1 - bn.momentum) * running + bn.momentum * information
        np.testing.assert_allclose(array(layer.information), running, rtol=1e-4, atol=1e-4)
        weights = np.exp(information) / np.exp(information).sum()
        fused = np.einsum("i,slictv->slctv", 3 * weights, array(p.unflatten(2, (3, 2))))
        current = conv_bn(fused, layer.current)
        np.testing.assert_allclose(array(currents["sn"]), current, atol=2e-3)
        assert out.shape == (2, 2, 4, 3, 4)


def test_smf_starts_with_equal_weights_and_learns_them_through_g_and_b_alone():
    torch.manual_seed(0)
    layer = SMF(4, 2, 3, TAU)
    np.testing.assert_allclose(array(layer.weights(layer.information)), 0.25)
    p = random_spikes(0, 2, 2, 8, 3, 4, rate=0.5).requires_grad_()
    layer(p, lambda name, spikes: None).sum().backward()
    assert layer.g.grad is not None
    assert layer.b.grad.abs().sum() > 0
    assert not layer.information.requires_grad


# SA-SGC and its parts


@few
@given(
    seed=seeds, inputs=st.integers(1, 3), outputs=st.integers(1, 3), subsets=st.integers(1, 3),
    joints=st.integers(1, 5),
    learned=st.booleans(),
)  # fmt: skip
def test_graph_convolution(seed, inputs, outputs, subsets, joints, learned):
    torch.manual_seed(seed)
    adjacency = random_adjacency(seed, subsets, joints)
    layer = scramble(GraphConvBN(inputs, outputs, adjacency, learned), seed)
    nn.init.normal_(layer.adjacency)  # as if learnt, on edges that are none too
    x = random_spikes(seed, 3, inputs, 2, joints)
    edges = np.ones(adjacency.shape) if learned else array(adjacency) != 0
    y = graph_convolve(array(x), array(layer.adjacency) * edges, array(layer.weight)[..., 0])
    np.testing.assert_allclose(array(layer(x)), normalise(y, layer.bn), rtol=1e-5, atol=3e-6)


def test_graph_convolution_runs_from_source_to_target():
    """One edge, joint 0 to joint 2: what 0 says is heard at 2, and nowhere else."""
    adjacency = torch.zeros(1, 3, 3)
    adjacency[0, 0, 2] = 0.5
    layer = GraphConvBN(1, 1, adjacency, learned=False).eval()
    nn.init.constant_(layer.weight, 3.0)
    heard = layer(torch.tensor([[[[1.0, 0.0, 0.0]]]])) * math.sqrt(1 + layer.bn.eps)
    np.testing.assert_allclose(array(heard)[0, 0, 0], [0, 0, 1.5], atol=1e-6)
    assert not layer(torch.tensor([[[[0.0, 1.0, 1.0]]]])).any()


@pytest.mark.parametrize("learned", [False, True])
def test_adjacency_starts_from_the_skeleton_and_learns_where_it_may(learned):
    torch.manual_seed(0)
    start = torch.from_numpy(adjacency_subsets(graph("ntu-25")))
    layer = GraphConvBN(2, 3, start, learned)
    assert torch.equal(layer.masked_adjacency(), start)
    (layer(random_spikes(0, 4, 2, 3, 25)) * torch.randn(4, 3, 3, 25)).sum().backward()
    assert torch.equal(layer.adjacency.grad != 0, torch.ones_like(start, dtype=torch.bool) if learned else start != 0)


@few
@given(
    seed=seeds, heads=st.integers(1, 3), depth=st.integers(1, 3), n_bodies=st.integers(1, 2), frames=st.integers(1, 2),
    joints=st.integers(1, 4),
)  # fmt: skip
def test_attention(seed, heads, depth, n_bodies, frames, joints):
    layer = SpikingSelfAttention(heads, TAU).eval()
    generator = torch.Generator().manual_seed(seed)
    nn.init.uniform_(layer.log_gain_m, -1.0, 1.0, generator=generator)
    nn.init.uniform_(layer.log_gain_z, -1.0, 1.0, generator=generator)
    channels = heads * depth
    qkv = random_spikes(seed, 4, n_bodies, 3 * channels, frames, joints, rate=0.6)
    record = {}
    with torch.no_grad():
        z = layer(qkv, record.__setitem__, "block3_attention")
    assert list(record) == ["block3_attention.m", "block3_attention.z"]
    assert record["block3_attention.z"] is z
    q, k, v = (array(qkv)[:, :, i * channels : (i + 1) * channels] for i in range(3))
    m = record["block3_attention.m"]
    assert_neuron(map_current(q, k, np.exp(array(layer.log_gain_m))), m)
    assert_neuron(value_current(array(m), v, np.exp(array(layer.log_gain_z))), z)


def test_attention_map_is_query_by_key():
    """One head, three joints: joint 0 asks, joint 2 is the only key, so 0 receives what 2 holds."""
    layer = SpikingSelfAttention(1, TAU).eval()
    nn.init.constant_(layer.log_gain_m, 1.0)
    nn.init.constant_(layer.log_gain_z, 1.0)
    qkv = torch.zeros(1, 1, 3, 1, 3)
    qkv[0, 0, 0, 0, 0] = qkv[0, 0, 1, 0, 2] = qkv[0, 0, 2, 0, 2] = 1.0  # q at 0, k and v at 2
    record = {}
    layer(qkv, record.__setitem__, "a")
    assert record["a.m"][0, 0, 0, 0].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert record["a.z"][0, 0, 0, 0].tolist() == [1, 0, 0]


@few
@given(seed=seeds, steps=st.integers(1, 8), rate=st.floats(0.1, 0.95), training=st.booleans())
def test_a_gate_of_token_attention_is_an_and(seed, steps, rate, training):
    """Its neuron never fires at spikes of one input alone, however many, and always at two of one step."""
    layer = SpikingTokenAttention(2, TAU).train(training)
    q, k = (random_spikes(seed + i, steps, 2, 8, 3, 4, rate=rate) for i in range(2))
    record = {}
    z = layer(k, q, record.__setitem__, "a")
    assert list(record) == ["a_m", "a_z"]
    assert record["a_z"] is z
    assert_neuron(token_current(array(q), 2), record["a_m"], margin=-1)
    assert np.array_equal(array(z), gated(array(record["a_m"]), array(k)))


@pytest.mark.parametrize("training", [True, False])
def test_a_gate_of_rates_is_their_product(training):
    """An evaluation in the rate phase sees the network that is trained: of the sum of two rates no neuron makes their AND."""
    layer = SpikingTokenAttention(1, TAU).train(training)
    for neuron in layer.neurons("a").values():
        neuron.rate_steps = 4
    q, k = torch.ones(1, 1, 2, 3, 4), torch.full((1, 1, 2, 3, 4), 0.5)
    record = {}
    z = layer(k, q, record.__setitem__, "a")
    assert (record["a_m"] == 1).all()
    assert (z == 0.5).all()


@pytest.mark.parametrize(
    ("heads", "depth", "rate"), [(2, 16, 0.3), (4, 4, 0.2), (8, 4, 0.5), (8, 16, 0.15), (8, 32, 0.15)]
)
def test_the_first_training_batch_sets_the_gains(heads, depth, rate):
    """M and Z fire at 5 to 20 % in every head; with the sibling models' fixed gain of 1/8 some of
    these would never fire."""
    layer = SpikingSelfAttention(heads, TAU)
    qkv = random_spikes(0, 4, 4, 3 * heads * depth, 4, 20, rate=rate)
    layer.eval()(qkv, lambda name, spikes: None, "a")
    assert not layer.log_gain_m.any()  # inference leaves them
    record = {}
    layer.train()(qkv, record.__setitem__, "a")
    for name in ("a.m", "a.z"):
        by_head = record[name].unflatten(2, (heads, -1)).transpose(0, 2).flatten(1).mean(1)
        assert by_head.min() >= 0.05
        assert by_head.max() <= 0.2
    gains = layer.log_gain_m.clone(), layer.log_gain_z.clone()
    layer(random_spikes(1, *qkv.shape, rate=0.05), lambda name, spikes: None, "a")
    assert torch.equal(gains[0], layer.log_gain_m)  # once only
    assert torch.equal(gains[1], layer.log_gain_z)
    resumed = SpikingSelfAttention(heads, TAU)
    resumed.load_state_dict(layer.state_dict())
    resumed.train()(random_spikes(1, *qkv.shape, rate=0.05), lambda name, spikes: None, "a")
    assert torch.equal(gains[0], resumed.log_gain_m)  # and not again after a checkpoint


@few
@given(
    seed=seeds, inputs=st.integers(1, 3), depth=st.integers(1, 2), joints=st.integers(2, 4), learned=st.booleans(),
    attention=st.sampled_from(["self", "token", "none"]),
)  # fmt: skip
def test_sasgc(seed, inputs, depth, joints, learned, attention):
    torch.manual_seed(seed)
    heads = 2
    adjacency = random_adjacency(seed, 3, joints)
    layer = SASGC(
        "block7", inputs, heads * depth, adjacency, heads=heads, tau=TAU, attention=attention, learned=learned
    )
    scramble(layer, seed)
    x = random_spikes(seed, 4, 2, inputs, 2, joints)
    out, record, currents = run(layer, x)
    y = record["block7_sgc"]
    assert_population(graph_conv_bn(array(x), layer.graph) + conv_bn(array(x), layer.skip), currents["sn"], y)
    if attention == "none":
        assert list(record) == ["block7_sgc"]
        assert out is y
        assert not any("attention" in name or "qkv" in name for name in layer.state_dict())
        return
    if attention == "token":
        names = ["block7_sgc", "block7_k", "block7_q", "block7_attention_m", "block7_attention_z", "block7_proj"]
        _, k, q, m, z, proj = (record[name] for name in names)
        assert_population(conv_bn(array(y), layer.q), currents["q_sn"], q)
        assert_population(conv_bn(array(y), layer.k), currents["k_sn"], k)
        assert_neuron(token_current(array(q), heads), m, margin=-1)
        assert np.array_equal(array(z), gated(array(m), array(k)))
    else:
        names = ["block7_sgc", "block7_qkv", "block7_attention.m", "block7_attention.z", "block7_proj"]
        _, qkv, m, z, proj = (record[name] for name in names)
        assert_population(conv_bn(array(y), layer.qkv), currents["qkv_sn"], qkv)
        q, k, v = np.split(array(qkv), 3, axis=2)
        assert_neuron(map_current(q, k, np.exp(array(layer.attention.log_gain_m))), m)
        assert_neuron(value_current(array(m), v, np.exp(array(layer.attention.log_gain_z))), z)
    assert list(record) == names
    current = conv_bn(array(z), layer.proj) + conv_bn(array(y), layer.proj_skip)
    assert_population(current, currents["proj_sn"], proj)
    assert out is proj


# STC


@few
@given(
    seed=seeds, inputs=st.integers(1, 3), outputs=st.integers(1, 3), kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]), frames=st.integers(1, 6), joints=st.integers(1, 3),
)  # fmt: skip
def test_stc(seed, inputs, outputs, kernel, stride, frames, joints):
    torch.manual_seed(seed)
    layer = scramble(STC("block2", inputs, outputs, kernel=kernel, stride=stride, tau=TAU), seed)
    y = random_spikes(seed, 4, 2, outputs, frames, joints)  # of SA-SGC
    x = random_spikes(seed + 1, 4, 2, inputs, frames, joints)  # of the block before
    out, record, currents = run(layer, y, x)
    current = conv_bn(array(y), layer.conv, stride) + conv_bn(array(x), layer.skip, stride)
    assert_population(current, currents["sn"], out)
    assert list(record) == ["block2_stc"]
    assert record["block2_stc"] is out
    assert out.shape == (4, 2, outputs, (frames - 1) // stride + 1, joints)
    assert layer.conv.conv.weight.shape == (outputs, outputs, kernel, 1)


# What every layer owes the rest


def test_batch_norms_start_at_one_and_synapses_have_no_other_bias():
    """A weight of 1e-6, as in the sibling models, would silence a neuron of threshold 1 (trap
    2)."""
    layers = [
        SSC(4, 2, 4, TAU), SMF(4, 2, 3, TAU), STC("b", 2, 3, kernel=5, stride=2, tau=TAU),
        *(
            SASGC("b", 2, 4, torch.eye(3)[None], heads=2, tau=TAU, attention=kind, learned=False)
            for kind in ("self", "token")
        ),
    ]  # fmt: skip
    norms = [m for layer in layers for m in layer.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 1 + 2 + 5 + 6
    assert all((bn.weight == 1).all() for bn in norms)
    assert all((bn.bias == 0).all() for bn in norms)
    init_bn_biases(nn.ModuleList(layers))
    shifted = [layers[3].qkv.bn, layers[4].q.bn, layers[4].k.bn]  # must coincide often enough to be learnt
    assert all((bn.bias == (1 if bn in shifted else 0.5)).all() for bn in norms)
    assert all(m.bias is None for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d))


def test_a_binary_identity_path_can_fire():
    """Trap 1: a constant input of 1 never lifts h to the threshold (0.5, 0.75, ...); the gain of a
    residual's norm does."""
    skip = ConvBN(1, 1).eval()
    nn.init.ones_(skip.conv.weight)
    layer = STC("b", 1, 1, kernel=1, stride=1, tau=TAU).eval()
    nn.init.zeros_(layer.conv.conv.weight)
    layer.skip = skip
    x = torch.ones(4, 1, 1, 1, 1)
    assert run(layer, x, x)[0].sum() == 0
    nn.init.constant_(skip.bn.weight, 1.5)
    assert run(layer, x, x)[0].flatten().tolist() == [0, 1, 0, 1]
