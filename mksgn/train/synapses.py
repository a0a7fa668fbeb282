"""Synapses that leave the neurons of a student: how many each of its spikes reaches on a chip."""

from mksgn.train.layers import GraphConvBN, SpikingTokenAttention
from mksgn.train.student import Student


def fan_out(student: Student) -> dict[str, float]:
    """Count the synapses, or in attention the product units, that a neuron of each population reaches, on average.

    Spikes times fan-out are synaptic operations, as `mksgn-deploy` counts them. There are no synapses
    beyond borders, at positions that a stride skips, or for edges that the skeleton does not have.
    """
    config, joints = student.config, student.config.joints
    counts = {"ssc": float(config.widths[0])}  # the streams' weights are folded into SMF's convolution
    source, frames = "smf", config.frames
    for (sgc, stc), width, after in zip(student.blocks, config.widths, config.block_frames, strict=True):
        to_stc = width * _taps(frames, config.kernel, stc.conv.conv.stride[0]) / frames
        counts[source] = width * (_edges(sgc.graph) / joints + 1 + after / frames)  # and both skip paths
        counts[f"{sgc.name}_sgc"] = to_stc
        if isinstance(sgc.attention, SpikingTokenAttention):
            counts[f"{sgc.name}_sgc"] = 3.0 * width  # q, k and the skip path
            counts |= {f"{sgc.name}_q": float(config.heads), f"{sgc.name}_k": 1.0}
            counts |= {f"{sgc.name}_attention_m": float(width), f"{sgc.name}_attention_z": float(width)}
            counts[f"{sgc.name}_proj"] = to_stc
        elif sgc.attention is not None:
            counts[f"{sgc.name}_sgc"] = 4.0 * width  # q, k, v and the skip path
            counts[f"{sgc.name}_qkv"] = float(joints)
            counts[f"{sgc.name}_attention.m"] = width / config.heads
            counts[f"{sgc.name}_attention.z"] = float(width)
            counts[f"{sgc.name}_proj"] = to_stc
        source, frames = f"{stc.name}_stc", after
    counts[source] = float(len(config.classes))
    return counts


def _taps(frames: int, kernel: int, stride: int) -> int:
    """Count the pairs of an input frame and an output frame that a padded convolution connects."""
    reach = kernel // 2
    return sum(min(at + reach, frames - 1) - max(at - reach, 0) + 1 for at in range(0, frames, stride))


def _edges(graph: GraphConvBN) -> int:
    """Count the pairs of a source joint and a target joint that any of the subsets connects."""
    return int((graph.mask != 0).any(0).sum())
