"""The student's layers: SSC, SMF, SA-SGC, STC. The output of a layer is binary; residuals are added
to the current.

Tensors are (S, L, C, T, V): time steps, bodies, channels, frames, joints. Each layer passes its
populations' spikes to `record`, under the names that NIR file, program and event counts use.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from mksgn.train.neurons import LIF, Current

Record = Callable[[str, Tensor], None]
Attention = Literal["self", "token", "none"]

MUTUAL_INFORMATION_EPS = 1e-6
# Initial biases of the batch norms [ours]. From 0, populations fire at 4 to 7 % and pass on little
# gradient, and the student learns half as fast (docs/training.md); q and k then coincide too rarely
# for any gain to make the map fire at 10 %.
OFFSET, OFFSET_QKV = 0.5, 1.0
IDENTITY = 0.8  # share of the identity in a skip path at the start [ours]
TARGET_RATE = 0.1  # firing rate to which the attention's gains are initialised, inside PAPER.md's 5–20 %


def is_attention(population: str, parts: str = "mz") -> bool:
    """Tell whether a name is that of attention's map m or of its values z."""
    return population[-1:] in tuple(parts) and population[:-1].endswith(("_attention.", "_attention_"))


def over_steps(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a stateless module to all steps at once: (S, L, ...) → (S·L, ...) → (S, L, ...)."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvBN(nn.Module):
    """A convolution without bias and its batch norm: one current into a membrane. Input and output
    (N, C, T, V).

    The batch norm's weight starts at 1: the sibling models' 1e-6 would silence a neuron with
    threshold 1 (PAPER.md trap 2).
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), stride: int = 1):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=(stride, 1), padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="linear")

    def forward(self, x: Tensor, *, normalise: bool = True) -> Tensor:
        return self.bn(self.conv(x)) if normalise else self.conv(x)


def skip_path(inputs: int, outputs: int, stride: int = 1) -> ConvBN:
    """Make BN(Conv1x1(X)), the residual path into a membrane, initially near the identity (repeated
    where there are more outputs) [ours].

    Spikes and gradients then pass through all blocks from the start (docs/training.md).
    """
    path = ConvBN(inputs, outputs, stride=stride)
    with torch.no_grad():
        path.conv.weight.mul_(1 - IDENTITY)
        output = torch.arange(outputs)
        path.conv.weight[output, output % inputs, 0, 0] += IDENTITY
    return path


def init_bn_biases(network: nn.Module) -> None:
    """Set the bias of every batch norm before a spiking population."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, OFFSET)
    for module in network.modules():
        if isinstance(module, SASGC):
            for branch, _ in module.attended.values():
                nn.init.constant_(branch.bn.bias, OFFSET_QKV)


def folded_norm(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Compute g = gamma / sqrt(var + eps) and b = beta - g mean, each (C,) float64: batch norm at
    inference is g y + b."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gain = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return gain, bn.bias.double() - gain * bn.running_mean.double()


class SSC(nn.Module):
    """Skeleton spiking coding: P_i = SN(BN(Conv2d_3x3(Expand(X_i))))  [review]; one unshared branch
    per stream, padding 1 [ours].

    The branches are one convolution of four groups, streams · 3 → streams · channels. Input (L, 12,
    T, V), analog; output (S, L, 4·C0, T, V), stream after stream. The current is the same at all S
    steps, so it is computed once.
    """

    def __init__(self, streams: int, channels: int, steps: int, tau: float):
        super().__init__()
        self.steps = steps
        self.conv = nn.Conv2d(3 * streams, channels * streams, 3, padding=1, groups=streams, bias=False)
        self.bn = nn.BatchNorm2d(channels * streams)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="linear")
        self.sn = LIF(tau)

    def forward(self, x: Tensor, record: Record) -> Tensor:
        spikes = self.sn(Current(self.conv(x).unsqueeze(0), self.steps, norm=self.bn))
        record("ssc", spikes)
        return spikes


def mutual_information(p: Tensor) -> Tensor:
    """Compute the plug-in mutual information of binary variables, in nats, from their joint rates
    [ours].

    `p` is (..., n, n): p[i, j] = mean(P_i P_j), with the rates p_i on the diagonal. Returns I of
    the same shape: I_ij = sum_ab p_ab log(p_ab / (p_a p_b)), every probability floored at 1e-6.
    """
    rate = torch.diagonal(p, dim1=-2, dim2=-1)
    pi, pj = rate.unsqueeze(-1).expand_as(p), rate.unsqueeze(-2).expand_as(p)
    joint = torch.stack([p, pi - p, pj - p, 1 - pi - pj + p]).clamp_min(MUTUAL_INFORMATION_EPS)
    product = torch.stack([pi * pj, pi * (1 - pj), (1 - pi) * pj, (1 - pi) * (1 - pj)]).clamp_min(
        MUTUAL_INFORMATION_EPS
    )
    return (joint * torch.log(joint / product)).sum(0)


class SMF(nn.Module):
    """Spiking multimodal fusion, "leveraging mutual information" [paper]; the formula is ours:

        I_ij from p_i = mean(P_i), p_ij = mean(P_i P_j) over steps, frames, joints; mean over
        channels and batch
        w = softmax_i(g · sum_{j != i} I_ij + b_i)          g, b learnable, 1 and 0 at the start
        F = SN(BN(Conv1x1(sum_i 4 w_i P_i)))

    The information is a running statistic like those of a batch norm (momentum 0.1), so that w is
    constant at inference and folds into the synapses. It carries no gradient; g and b learn the
    weighting. With `use_mutual_information = False` all streams weigh the same, F =
    SN(BN(Conv1x1(sum_i P_i))): the baseline for SMF, which is as accurate (docs/results.md).
    """

    information: Tensor

    def __init__(self, streams: int, channels: int, outputs: int, tau: float, *, use_mutual_information: bool = True):
        super().__init__()
        self.streams, self.use_mutual_information = streams, use_mutual_information
        self.register_buffer("information", torch.zeros(streams))  # sum over j != i of I_ij, running mean
        self.g = nn.Parameter(torch.ones(()), requires_grad=use_mutual_information)
        self.b = nn.Parameter(torch.zeros(streams), requires_grad=use_mutual_information)
        self.current = ConvBN(channels, outputs)
        self.sn = LIF(tau)

    def weights(self, information: Tensor) -> Tensor:
        if not self.use_mutual_information:
            return torch.full_like(information, 1 / self.streams)
        return torch.softmax(self.g * information + self.b, dim=0)

    @torch.no_grad()
    def measure(self, p: Tensor) -> Tensor:
        """Measure sum over j != i of I_ij, (streams,) in nats, of spikes (S, L, streams, C0, T,
        V)."""
        flat = p.permute(1, 3, 2, 0, 4, 5).flatten(3).float()  # (L, C0, streams, S·T·V)
        with torch.autocast(p.device.type, enabled=False):  # counts above 256 are not exact in bfloat16
            coincidences = flat @ flat.transpose(-1, -2)
        information = mutual_information(coincidences / flat.shape[-1]).mean((0, 1))
        return information.sum(1) - information.diagonal()

    def forward(self, p: Tensor, record: Record) -> Tensor:
        p = p.unflatten(2, (self.streams, -1))
        information = self.information
        if self.training and self.use_mutual_information:
            information = self.measure(p)
            self.information.lerp_(information, 0.1)
        weights = self.streams * self.weights(information)
        fused = torch.einsum("slickv,i->slckv", p, weights)
        spikes = self.sn(current(self.current, fused))
        record("smf", spikes)
        return spikes


class GraphConvBN(nn.Module):
    """BN(sum_k A_kᵀ X W_k) over three adjacency subsets with learnable A_k [sibling]; A_k[i, j]:
    source i, target j.

    `learned = False` keeps A_k on the skeleton's edges [ours]; `learned = True` frees all V × V
    entries [sibling].
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, adjacency: Tensor, learned: bool):
        super().__init__()
        subsets, joints, _ = adjacency.shape
        self.adjacency = nn.Parameter(adjacency.clone())
        self.register_buffer("mask", torch.ones_like(adjacency) if learned else (adjacency != 0).to(adjacency.dtype))
        # (outputs, inputs, K, 1): the product with A puts the subsets on the frames' axis, where
        # the kernel sums over them
        self.weight = nn.Parameter(torch.empty(outputs, inputs, subsets, 1))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (inputs * subsets)))
        self.bn = nn.BatchNorm2d(outputs)
        self.subsets, self.joints = subsets, joints

    def masked_adjacency(self) -> Tensor:
        return self.adjacency * self.mask

    def forward(self, x: Tensor, *, normalise: bool = True) -> Tensor:
        n, c, t, v = x.shape
        spread = self.masked_adjacency().permute(1, 0, 2).reshape(v, self.subsets * v)  # [source, (k, target)]
        y = (x.reshape(-1, v) @ spread).view(n, c, t * self.subsets, v)
        y = nn.functional.conv2d(y, self.weight, stride=(self.subsets, 1))
        return self.bn(y) if normalise else y


def current(branch: ConvBN | GraphConvBN, x: Tensor) -> Current:
    """Make a branch's current from spikes (S, L, C, T, V); the neuron applies the batch norm."""
    return Current(over_steps(lambda spikes: branch(spikes, normalise=False), x), len(x), norm=branch.bn)


def attention_map_counts(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Count coincidences q kᵀ of (..., C, T, V) spikes → (..., heads, T, V, V), [query, key];
    channel = head · d + i."""
    q, k = (x.unflatten(-3, (heads, -1)).transpose(-3, -2) for x in (q, k))  # (..., heads, T, d, V)
    return q.transpose(-1, -2) @ k


def attention_value_counts(m: Tensor, v: Tensor) -> Tensor:
    """Count coincidences m v of maps (..., heads, T, V, V) and spikes (..., C, T, V): (..., C, T, V)."""
    values = v.unflatten(-3, (m.shape[-4], -1)).transpose(-3, -2)  # (..., heads, T, d, V)
    z = m @ values.transpose(-1, -2)  # sum over keys; the gradient of m then has m's memory layout
    return z.movedim(-1, -3).flatten(-4, -3)


class SpikingSelfAttention(nn.Module):
    """Spiking self-attention over the joints of a frame: M = SN(g_m Q Kᵀ), Z = SN(g_z M V).

    The map is binary, as in the paper's figure [paper]; there is no softmax [sibling], and a gain per
    head [ours]. The input is the stacked q|k|v spikes (S, L, 3C, T, V), the output z (S, L, C, T, V).

    With the sibling models' fixed gain of 0.125 a map neuron hardly ever fires (PAPER.md). On the
    first training batch each head's gain is therefore set such that about a tenth of its neurons
    fire per step; from then on it is learnt. That requires q, k and v to fire: their batch norm
    starts with an offset of 1 (SASGC).
    """

    initialised: Tensor

    def __init__(self, heads: int, tau: float):
        super().__init__()
        self.heads = heads
        # the thresholds stay 1, since the gains scale the currents, and are not part of the file
        self.m_sn, self.z_sn = LIF(tau, persistent=False), LIF(tau, persistent=False)
        self.log_gain_m = nn.Parameter(torch.zeros(heads))
        self.log_gain_z = nn.Parameter(torch.zeros(heads))
        self.register_buffer("initialised", torch.tensor(False))
        self._has_gains = False  # the same as `initialised`, without asking the GPU

    @torch.no_grad()
    def _gain_for_rate(self, counts: Tensor, neuron: LIF) -> Tensor:
        """Return the log gain per head whose firing rate is nearest to the target; `counts` is (S, L, heads, ...).

        Coincidences are whole numbers, so the rate is piecewise constant in the gain. Of the gains
        that give the best rate the middle one is taken, away from the ties at the edges. Gains above
        2 are not tried: they give the same spikes as 2, at which one coincidence makes a neuron fire
        at once, and only lose the gradient.
        """
        counts = counts[:, :8].float().transpose(0, 2).flatten(3).transpose(0, 2)  # a few bodies suffice
        gains = torch.logspace(-5, 1.1, 25, base=2.0, device=counts.device)
        rates = torch.stack([neuron(counts * g).mean((0, 1, 3)) for g in gains])  # (gains, heads)
        distance = (rates - TARGET_RATE).abs()
        best = distance == distance.min(0).values
        middle = (best.float() * gains.log()[:, None]).sum(0) / best.sum(0)
        return middle

    def neurons(self, name: str) -> dict[str, LIF]:
        """Return both populations by the names under which their spikes are recorded."""
        return {f"{name}.m": self.m_sn, f"{name}.z": self.z_sn}

    def forward(self, qkv: Tensor, record: Record, name: str) -> Tensor:
        q, k, v = qkv.chunk(3, dim=2)
        counts = attention_map_counts(q, k, self.heads)
        fresh = self.training and not self._has_gains and not bool(self.initialised)
        self._has_gains |= self.training
        if fresh:
            self.log_gain_m.data.copy_(self._gain_for_rate(counts, self.m_sn))
        m = self.m_sn(Current(counts, len(counts), gain=self.log_gain_m.exp()))
        record(f"{name}.m", m)
        counts = attention_value_counts(m, v)
        if fresh:
            self.log_gain_z.data.copy_(self._gain_for_rate(counts.unflatten(2, (self.heads, -1)), self.z_sn))
            self.initialised.fill_(True)
        gain = self.log_gain_z.exp().repeat_interleave(counts.shape[2] // self.heads)
        z = self.z_sn(Current(counts, len(counts), gain=gain))
        record(f"{name}.z", z)
        return z


class SpikingTokenAttention(nn.Module):
    """Spiking attention to whole joints, the token attention of QKFormer (Zhou et al. 2024) [ours]:

        M = SN(4/d sum_i Q_i)       sum over the d channels of a head, (heads, T, V)
        Z = M AND K                 each of a head's channels, (C, T, V)

    M selects the joints of a frame whose K is passed on. Q and K are separate populations (S, L, C, T, V).

    There are no products of two populations: a LIF neuron of tau 2 and threshold 1 that receives both
    spikes with weight 1 computes the AND. One spike at each of S steps takes its membrane to 1 - 2^-S,
    both at one step to at least 1. In training, and for rates, Z is computed as M K, which has the same
    spikes and the gradient of a gate.
    """

    def __init__(self, heads: int, tau: float):
        super().__init__()
        self.heads = heads
        self.m_sn, self.z_sn = LIF(tau, persistent=False), LIF(tau, persistent=False)

    def neurons(self, name: str) -> dict[str, LIF]:
        """Return both populations by the names under which their spikes are recorded."""
        return {f"{name}_m": self.m_sn, f"{name}_z": self.z_sn}

    def weight(self, channels: int) -> float:
        """Return M's synaptic weight, with which one step is enough to fire if half of the head's channels spike."""
        return 4.0 * self.heads / channels

    def forward(self, k: Tensor, q: Tensor, record: Record, name: str) -> Tensor:
        counts = q.unflatten(2, (self.heads, -1)).sum(3) * self.weight(q.shape[2])
        m = self.m_sn(Current(counts, len(counts)))
        record(f"{name}_m", m)
        gate = m.repeat_interleave(k.shape[2] // self.heads, dim=2)
        z = gate * k if self.training or self.z_sn.rate_steps else self.z_sn(gate + k)
        record(f"{name}_z", z)
        return z


class SASGC(nn.Module):
    """Self-attention spiking graph convolution: name [paper], equations [sibling], sums at the
    membrane and binary map [ours].

        Y  = SN( BN(sum_k A_kᵀ X W_k) + BN(Conv1x1(X)) )
        Q|K|V = SN( BN(Conv1x1(Y)) )
        Y' = SN( BN(Conv1x1(Z)) + BN(Conv1x1(Y)) )        Z from SpikingSelfAttention

    With `attention = "token"` Z comes from SpikingTokenAttention, and Q and K are populations of their own. With
    "none" (v1's Base-SGN) the layer ends at Y.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        outputs: int,
        adjacency: Tensor,
        *,
        heads: int,
        tau: float,
        attention: Attention,
        learned: bool,
    ):
        super().__init__()
        self.name = name
        self.graph = GraphConvBN(inputs, outputs, adjacency, learned)
        self.skip = skip_path(inputs, outputs)
        self.sn = LIF(tau)
        self.attention: SpikingSelfAttention | SpikingTokenAttention | None = None
        if attention == "none":
            return
        if attention == "self":
            self.qkv, self.qkv_sn = ConvBN(outputs, 3 * outputs), LIF(tau)
            self.attention = SpikingSelfAttention(heads, tau)
        else:
            self.q, self.q_sn = ConvBN(outputs, outputs), LIF(tau)
            self.k, self.k_sn = ConvBN(outputs, outputs), LIF(tau)
            self.attention = SpikingTokenAttention(heads, tau)
        self.proj, self.proj_skip, self.proj_sn = ConvBN(outputs, outputs), skip_path(outputs, outputs), LIF(tau)

    @property
    def attended(self) -> dict[str, tuple[ConvBN, LIF]]:
        """Populations that attention reads, by the suffix of their names, in the order of an exported graph."""
        if isinstance(self.attention, SpikingSelfAttention):
            return {"qkv": (self.qkv, self.qkv_sn)}
        return {"k": (self.k, self.k_sn), "q": (self.q, self.q_sn)} if self.attention is not None else {}

    def forward(self, x: Tensor, record: Record) -> Tensor:
        y = self.sn(current(self.graph, x), current(self.skip, x))
        record(f"{self.name}_sgc", y)
        if self.attention is None:
            return y
        spikes = [self._attended(suffix, y, record) for suffix in self.attended]
        z = self.attention(*spikes, record, f"{self.name}_attention")
        out = self.proj_sn(current(self.proj, z), current(self.proj_skip, y))
        record(f"{self.name}_proj", out)
        return out

    def _attended(self, suffix: str, y: Tensor, record: Record) -> Tensor:
        branch, neuron = self.attended[suffix]
        spikes = neuron(current(branch, y))
        record(f"{self.name}_{suffix}", spikes)
        return spikes


class STC(nn.Module):
    """Spiking temporal convolution: name and purpose [paper]; out = SN( BN(Conv(k x 1, stride)(Y'))
    + BN(Conv1x1_s(X)) ) [ours].

    X is the input of the whole block. Frames: T → floor((T - 1) / stride) + 1.
    """

    def __init__(self, name: str, inputs: int, outputs: int, *, kernel: int, stride: int, tau: float):
        super().__init__()
        self.name = name
        self.conv = ConvBN(outputs, outputs, (kernel, 1), stride)
        self.skip = skip_path(inputs, outputs, stride)
        self.sn = LIF(tau)

    def forward(self, y: Tensor, x: Tensor, record: Record) -> Tensor:
        out = self.sn(current(self.conv, y), current(self.skip, x))
        record(f"{self.name}_stc", out)
        return out
