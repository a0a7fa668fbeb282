"""What --describe says, beside torch's own counter, and beside every input that a tiny layer can
have."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mksgn.train import fused
from mksgn.train.config import PRESETS
from mksgn.train.datasets import synthetic
from mksgn.train.describe import (
    Described,
    calibrate_batch_norms,
    largest_membrane,
    student_layers,
    teacher_layers,
    unable,
)
from mksgn.train.layers import is_attention
from mksgn.train.neurons import summed
from mksgn.train.skeletons import adjacency_subsets, graph
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import body_inputs
from tests.support.tiers import one_in

SHARED = {"graph": "nw-ucla-20", "classes": ("sit", "walk", "throw")}
DEMO = {**PRESETS["demo"]["student"], **SHARED}
SMALL = {**SHARED, "frames": 5, "stream_channels": 3, "widths": (4, 8, 6), "heads": 2, "kernel": 3, "steps": 3}
TINY = {
    **SHARED,
    "frames": 2,
    "stream_channels": 2,
    "widths": (2,),
    "heads": 1,
    "kernel": 3,
    "steps": 2,
    "streams": ("joint", "bone"),
}
BODIES = 3


def build(values, seed=0, **changes):
    torch.manual_seed(seed)
    return Student(StudentConfig(**{**values, **changes}))


def inputs(student, n_bodies=BODIES, seed=0):
    """Values on the streams' lattice, from end to end."""
    config, generator = student.config, torch.Generator().manual_seed(seed)
    shape = (n_bodies, 3 * len(config.streams), config.frames, config.joints)
    return torch.randint(-127, 128, shape, generator=generator).float() / 32


def scramble(student, seed, shift=0.3):
    """In inference mode; norms that have seen something, gains of either sign."""
    generator = torch.Generator().manual_seed(seed)
    for part in student.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.3, generator=generator)
            part.running_var.uniform_(0.3, 2.0, generator=generator)
            nn.init.normal_(part.weight, 0.5, 0.8, generator=generator)
            nn.init.normal_(part.bias, shift, 0.5, generator=generator)
    return student.eval()


# MACs, beside torch's counter of floating point operations, two for each MAC


def operations(call):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


STUDENTS = {
    "demo": (DEMO, {}),
    "no attention": (SMALL, {"attention": "none"}),
    "three streams": (SMALL, {"streams": ("joint", "bone", "bone_motion")}),
    "learned adjacency": (DEMO, {"adjacency": "learned"}),
    "mean": (SMALL, {"fusion": "mean"}),
    "an even number of frames, and 25 joints": (SMALL, {"frames": 6, "graph": "ntu-25"}),
}


@pytest.mark.parametrize("name", one_in(3, list(STUDENTS)))
def test_the_macs_of_a_student_are_those_that_torch_counts(name):
    values, changes = STUDENTS[name]
    student = build(values, **changes)
    x, config = inputs(student), student.config
    rows = student_layers(student, x)
    ours = BODIES * sum(row.macs * row.passes for row in rows)
    assert operations(lambda: student(x)) == 2 * ours
    # in training SMF measures every stream with every other, too; nothing else is counted then
    positions = config.steps * config.frames * config.joints
    measured = BODIES * config.stream_channels * len(config.streams) ** 2 * positions * (config.fusion == "information")
    assert operations(lambda: student.train()(x)) == 2 * (ours + measured)


def test_the_counter_misses_the_weighing_of_a_single_stream():
    """One stream is a product of every spike and a weight of 1: torch multiplies without a sum, and
    counts no such thing."""
    student = build(SMALL, streams=("bone",))
    x, config = inputs(student), student.config
    ours = BODIES * sum(row.macs * row.passes for row in student_layers(student, x))
    weighing = BODIES * config.steps * config.stream_channels * config.frames * config.joints
    assert operations(lambda: student(x)) == 2 * (ours - weighing)


def parts_of(student):
    """Module path of what torch computes for each row; the two products of an attention are one
    module."""
    parts = {"ssc": ["ssc"], "smf": ["smf"], "readout": ["fc"]}
    for i, sgc in enumerate(student.sgc):
        parts[f"block{i + 1}_sgc"] = [f"sgc.{i}.graph", f"sgc.{i}.skip"]
        if sgc.attention is not None:
            parts |= {f"block{i + 1}_{suffix}": [f"sgc.{i}.{suffix}"] for suffix in sgc.attended}
            parts[f"block{i + 1}_attention"] = [f"sgc.{i}.attention"]
            parts[f"block{i + 1}_proj"] = [f"sgc.{i}.proj", f"sgc.{i}.proj_skip"]
        parts[f"block{i + 1}_stc"] = [f"stc.{i}.conv", f"stc.{i}.skip"]
    return parts


@pytest.mark.parametrize("attention", ["self", "token", "none"])
def test_the_macs_of_each_row_are_its_modules(attention):
    student = build(SMALL, attention=attention)
    seen = {}
    for path, module in student.named_modules():
        module.register_forward_pre_hook(lambda _, given, path=path: seen.__setitem__(path, given))
    rows = student_layers(student, inputs(student))
    counted = {
        name: sum(operations(lambda path=path: student.get_submodule(path)(*seen[path])) for path in paths)
        for name, paths in parts_of(student).items()
    }
    told = {}
    for row in rows:
        name = row.name[:-2] if is_attention(row.name) else row.name
        told[name] = told.get(name, 0) + 2 * BODIES * row.macs * row.passes
    assert told == counted
    by_name = {row.name: row for row in rows}
    if attention == "self":  # a product of d channels for each pair of joints, a product of V keys for each channel
        assert by_name["block2_attention.m"].macs == by_name["block2_attention.z"].macs == 8 * 5 * 20 * 20
    assert [row.passes for row in rows] == [1, *[3] * (len(rows) - 2), 1]


@pytest.mark.parametrize("streams", [("joint", "bone", "joint_motion", "bone_motion"), ("bone",)])
def test_the_macs_of_a_teacher_are_those_that_torch_counts(streams):
    torch.manual_seed(0)
    teacher = Teacher(TeacherConfig(**{**PRESETS["demo"]["teacher"], **SHARED, "frames": 7, "streams": streams})).eval()
    x = torch.randn(BODIES, 3 * len(streams), 7, 20)
    seen = {}
    for path, module in teacher.named_modules():
        module.register_forward_pre_hook(lambda _, given, path=path: seen.__setitem__(path, given))
    whole = operations(lambda: teacher(x))
    rows = teacher_layers(teacher)
    assert 2 * BODIES * sum(row.macs * row.passes for row in rows) == whole
    parts = [f"layers.{i}" for i in range(10)] + ["fc"]
    for row, part in zip(rows, parts, strict=True):
        paths = [f"by_stream.{stream}.{part}" for stream in streams]
        counted = sum(operations(lambda path=path: teacher.get_submodule(path)(*seen[path])) for path in paths)
        assert 2 * BODIES * row.macs == counted
    with torch.no_grad():
        features = teacher.look(x)[1]
    assert [row.shape for row in rows[:-1]] == [tuple(f.shape[1:]) for f in features]
    assert rows[-1].shape == (3,)
    assert all(row.rate is None and row.unreachable is None and row.passes == 1 for row in rows)


# Parameters


def learnable(student, module):
    """Parameters that training can change: of an adjacency on the skeleton its edges, and nothing
    that is frozen."""
    edges = int(np.count_nonzero(adjacency_subsets(graph(student.config.graph))))
    return sum(
        edges if name.endswith("adjacency") and student.config.adjacency == "skeleton" else p.numel()
        for name, p in module.named_parameters()
        if p.requires_grad
    )


@pytest.mark.parametrize("name", one_in(3, list(STUDENTS)))
def test_the_parameters_of_a_student_are_each_in_one_row(name):
    values, changes = STUDENTS[name]
    student = build(values, **changes)
    rows = student_layers(student, inputs(student))
    assert sum(row.parameters for row in rows) == learnable(student, student)
    owned = {row.name: row.parameters for row in rows}
    for row, paths in parts_of(student).items():
        expected = sum(learnable(student, student.get_submodule(path)) for path in paths)
        if row.endswith("attention"):
            assert owned[f"{row}.m"] == owned[f"{row}.z"] == student.config.heads
        else:
            assert owned[row] == expected


def test_the_parameters_of_a_teacher_are_each_in_one_row():
    torch.manual_seed(0)
    teacher = Teacher(TeacherConfig(**{**PRESETS["demo"]["teacher"], **SHARED}))
    rows = teacher_layers(teacher)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in teacher.parameters())
    for i in range(10):
        layers = [network.layers[i] for network in teacher.by_stream.values()]
        assert rows[i].parameters == sum(p.numel() for layer in layers for p in layer.parameters())


def test_the_rates_and_shapes_are_those_of_the_spikes():
    student = scramble(build(SMALL), 0, shift=0.8)
    x, spikes = inputs(student), {}
    with torch.no_grad():
        student(x, spikes)
    rows = student_layers(student.train(), x)
    assert [row.name for row in rows[:-1]] == list(spikes)
    for row in rows[:-1]:
        s = spikes[row.name]
        assert row.shape == tuple(s.shape[2:])
        assert row.rate == pytest.approx(float(s.sum()) / s.numel(), abs=1e-12)
    assert sum(row.rate > 0 for row in rows[:-1]) > 10
    assert rows[-1].rate is rows[-1].unreachable is None
    assert not student.training


# The largest membrane


def potentials(current, tau=2.0):
    """The membrane before its reset, at each step: threshold 1, hard reset to 0."""
    v, out = np.zeros(current.shape[1:]), []
    for x in current:
        h = v + (x - v) / tau
        out.append(h)
        v = np.where(h >= 1.0, 0.0, h)
    return np.stack(out)


def all_sequences(steps, *shape):
    """Every binary input over so many steps: (steps, sequences, *shape)."""
    bits = steps * math.prod(shape)
    codes = torch.arange(2**bits)
    return (
        torch.stack([(codes >> i) & 1 for i in range(bits)]).float().T.reshape(2**bits, steps, *shape).transpose(0, 1)
    )


@torch.no_grad()
def highest_of(population, module, *given):
    """What each neuron of a population came to, over all bodies and steps: the module is run, its
    LIF overheard."""
    currents = []
    hook = population.register_forward_pre_hook(lambda _, x: currents.append(summed(x).double().numpy()))
    module(*given)
    hook.remove()
    return potentials(currents[0], population.tau).max((0, 1))


def assert_exact(bound, found):
    """No input lifts a neuron over its bound; below the threshold, and above rest, one lifts it
    right there."""
    bound = bound.double().numpy()
    np.testing.assert_array_equal(found >= 1.0, bound >= 1.0)
    assert (found <= np.maximum(bound, 0) + 1e-6).all()
    below = (bound > 0) & (bound < 1)
    np.testing.assert_allclose(found[below], bound[below], atol=1e-6)
    return {"able": int((bound >= 1).sum()), "unable": int((bound < 1).sum()), "exact": int(below.sum())}


def forget(name, spikes):
    pass


def total(counts):
    """The cases of several networks together: one that never occurs is not tested."""
    return {kind: sum(each[kind] for each in counts) for kind in counts[0]}


def test_largest_membrane_of_smf_is_that_of_the_best_of_all_spike_trains():
    counts = []
    for seed in range(30):
        student = scramble(build(TINY, seed, widths=(4,)), seed, shift=-0.6)
        student.smf.information.uniform_(0.0, 2.0)
        p = all_sequences(2, 4)[..., None, None]  # two streams of two channels, at one frame of one joint
        found = highest_of(student.smf.sn, student.smf, p, forget)
        bound = largest_membrane(student, "smf")
        assert bound.shape == (4, 2, 20)
        assert (bound == bound[:, :1, :1]).all()
        counts.append(assert_exact(bound[:, :1, :1], found))
    assert min(total(counts).values()) >= 10


def test_largest_membrane_of_qkv_is_that_of_the_best_of_all_spike_trains():
    counts = []
    for seed, tau in itertools.product(range(5), (1.5, 2.0, 3.0)):
        student = scramble(build(TINY, seed, widths=(4,), steps=3, tau=tau), seed, shift=-0.3)
        sgc = student.sgc[0]
        y = all_sequences(3, 4)
        with torch.no_grad():
            current = sgc.qkv(y.reshape(-1, 4, 1, 1)).reshape(3, -1, 12, 1, 1)
        found = potentials(current.double().numpy(), tau).max((0, 1))
        bound = largest_membrane(student, "block1_qkv")
        assert bound.shape == (12, 2, 20)
        counts.append(assert_exact(bound[:, :1, :1], found))
    assert min(total(counts).values()) >= 6


def test_largest_membrane_of_stc_is_that_of_the_best_of_all_spike_trains():
    """Its two inputs excite one neuron each for itself; at the first and last frame a part of the
    kernel lies outside."""
    counts = []
    for seed, stride in itertools.product(range(20), (1, 2)):
        student = scramble(build(TINY, seed, widths=(1, stride), frames=2), seed, shift=-0.2)
        stc = student.stc[1]
        bound = largest_membrane(student, "block2_stc")
        assert bound.shape == (stride, 2 // stride, 20)
        y, x = all_sequences(1, 2 * stride + 2).split((2 * stride, 2), dim=2)  # at two frames
        y, x = y.unflatten(2, (stride, 2))[..., None], x.unflatten(2, (1, 2))[..., None]
        # a constant input is the one that lifts a membrane most, as the trains above show
        found = highest_of(stc.sn, stc, y.expand(2, *y.shape[1:]), x.expand(2, *x.shape[1:]), forget)
        counts.append(assert_exact(bound[..., :1], found))
    assert min(total(counts).values()) >= 5


def test_largest_membrane_of_sgc_is_over_every_input_and_exact_without_a_residual():
    """All spikes of all joints that a joint hears; the residual comes from a joint that the graph
    hears too."""
    counts, gaps = [], 0
    for seed, alone in itertools.product(range(4), (False, True)):
        student = scramble(build(TINY, seed, widths=(2,)), seed, shift=0.1)
        sgc = student.sgc[0]
        with torch.no_grad():
            sgc.graph.adjacency.normal_(0.0, 1.0)
            if alone:
                sgc.skip.bn.weight.zero_()
        bound = largest_membrane(student, "block1_sgc")
        assert bound.shape == (2, 2, 20)
        for target in range(20):
            heard = sgc.graph.mask[:, :, target].sum(0).nonzero().flatten()
            spikes = all_sequences(1, 2 * len(heard))[0].unflatten(1, (2, -1))
            x = torch.zeros(len(spikes), 2, 1, 20)
            x[:, :, 0, heard] = spikes
            with torch.no_grad():
                current = (sgc.graph(x) + sgc.skip(x))[None].expand(2, -1, -1, -1, -1)
            found = potentials(current.double().numpy()).max((0, 1))[:, 0, target]
            here = bound[:, 0, target]
            if alone:
                counts.append(assert_exact(here, found))
            else:
                assert (found <= np.maximum(here.numpy(), 0) + 1e-6).all()
                gaps += int((np.minimum(here.numpy(), 1) > np.maximum(found, 0) + 1e-3).sum())
    assert min(total(counts).values()) >= 20
    assert gaps > 0


def test_largest_membrane_of_ssc_is_that_of_the_farthest_values_of_the_lattice():
    """Joint, coordinate, frame: each value in a neuron's window at 127/32 of the sign that excites
    it."""
    student = scramble(build(TINY, frames=4), 3, shift=-3.0)
    ssc, bound = student.ssc, largest_membrane(student, "ssc")
    assert bound.shape == (4, 4, 20)
    for c, t, v in [(0, 0, 0), (1, 1, 7), (2, 3, 19), (3, 2, 0), (3, 0, 12)]:
        x = torch.zeros(1, 6, 4, 20)
        gain = ssc.bn.weight[c].sign()
        for i, a, b in itertools.product(range(3), range(3), range(3)):
            frame, joint = t + a - 1, v + b - 1
            if 0 <= frame < 4 and 0 <= joint < 20:
                x[0, 3 * (c // 2) + i, frame, joint] = 127 / 32 * (ssc.conv.weight[c, i, a, b] * gain).sign()
        with torch.no_grad():
            current = ssc.bn(ssc.conv(x))[0, c, t, v]
        assert float(bound[c, t, v]) == pytest.approx(float(current) * 0.75, rel=1e-5)  # h after two steps: 1/2 + 1/4


@pytest.mark.parametrize(("product", "most"), [("m", 4), ("z", 20)])
def test_largest_membrane_of_an_attention_is_that_of_all_coincidences(product, most):
    """A little more gain than one over the d channels, or the V keys, and it fires at the last
    step; a little less, never."""
    for gain, fires in [(1.01, True), (0.99, False)]:
        student = build(TINY, widths=(8,), heads=2, steps=3).eval()
        attention = student.sgc[0].attention
        nn.init.constant_(attention.log_gain_m, math.log(2.0))  # one coincidence fires at once
        nn.init.constant_(getattr(attention, f"log_gain_{product}"), math.log(gain / (most * 0.875)))
        record = {}
        with torch.no_grad():
            attention(torch.ones(3, 1, 24, 2, 20), record.__setitem__, "a")
        rates = record[f"a.{product}"].flatten(1).mean(1).tolist()
        assert rates == [0, 0, 1 if fires else 0]
        bound = largest_membrane(student, f"block1_attention.{product}")
        assert bound.numel() == bound.shape[0] == 2
        np.testing.assert_allclose(bound.numpy(), gain, rtol=1e-5)


@pytest.mark.parametrize(("part", "most"), [("m", 4), ("z", 2)])
def test_largest_membrane_of_token_attention_is_that_of_all_inputs(part, most):
    student = build(TINY, widths=(8,), heads=2, steps=3, attention="token").eval()
    bound = largest_membrane(student, f"block1_attention_{part}")
    assert bound.shape == ({"m": 2, "z": 8}[part], 2, 20)
    assert (bound == most * 0.875).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes", [{}, {"attention": "none", "tau": 1.5, "steps": 4}, {"adjacency": "learned"}, {"attention": "token"}]
)
def test_no_membrane_is_ever_seen_above_its_largest(seed, changes):
    """In a whole network with inputs from end to end of the lattice."""
    student = build(SMALL, seed, **changes)
    x = inputs(student, 12, seed)
    calibrate_batch_norms(student, x)
    generator = torch.Generator().manual_seed(seed)
    for norm in student.modules():
        if isinstance(norm, nn.BatchNorm2d):
            gain, offset = torch.rand(2, len(norm.weight), generator=generator)
            norm.weight.data *= (1.0 + gain) * (0.7 - offset).sign()  # three in ten turned round
            norm.bias.data += 0.5 * gain
    currents, tau = {}, student.config.tau
    for name, population in student.neurons().items():
        population.register_forward_pre_hook(lambda _, x, name=name: currents.__setitem__(name, summed(x)))
    record = {}
    with torch.no_grad():
        student(x, record)
    assert set(currents) == set(record)
    alive = 0
    for name, current in currents.items():
        seen = potentials(current.double().numpy(), tau).max((0, 1))
        bound = largest_membrane(student, name).numpy()
        if name.endswith("attention.z"):
            bound = bound[:, 0].repeat(len(seen) // len(bound), 0)  # from one per head to one per channel
        bound = np.broadcast_to(bound, seen.shape)
        # a neuron that is only ever pushed down is nearest to rest where its push is least
        assert (seen <= np.maximum(bound, 0) + 1e-4).all(), name
        alive += bool((seen > 0.5).any())
    assert alive > 0.8 * len(currents)  # a network at rest would say little


# What is unable


def settled(**changes):
    """A student as training finds it, and bodies."""
    clips = synthetic.read(12, "train").clips
    student = build({**SMALL, "graph": "ntu-25", "frames": 8, "widths": (8, 16), "stream_channels": 4}, **changes)
    x = torch.from_numpy(body_inputs(clips, StreamNormaliser.fit(clips, 8))[0])
    calibrate_batch_norms(student, x)
    return student, x


def test_a_healthy_network_has_nothing_to_say():
    student, x = settled()
    rows = student_layers(student, x)
    assert unable(rows) == []
    assert all(row.unreachable < 0.2 for row in rows[:-1])


@pytest.mark.parametrize(
    ("name", "branches"),
    [
        ("ssc", ["ssc"]),
        ("smf", ["smf.current"]),
        ("block1_sgc", ["sgc.0.graph", "sgc.0.skip"]),
        ("block2_qkv", ["sgc.1.qkv"]),
        ("block1_proj", ["sgc.0.proj", "sgc.0.proj_skip"]),
        ("block2_stc", ["stc.1.conv", "stc.1.skip"]),
    ],
)
def test_a_population_that_was_made_unable_is_named(name, branches):
    """Norms of weight 0 and a small offset, as after a bad initialisation (trap 2): whatever comes,
    its membrane stays low."""
    student, x = settled()
    for branch in branches:
        norm = student.get_submodule(branch).bn
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 1.0 / len(branches))  # in three steps a current of 1 comes to 0.875
    rows = {row.name: row for row in student_layers(student, x)}
    lines = unable(list(rows.values()))
    size = math.prod(rows[name].shape)
    assert lines[0] == f"{name}: none of its {size} neurons can reach the threshold"
    assert rows[name].unreachable == 1.0
    assert rows[name].rate == 0.0
    assert not any("none of" in line for line in lines[1:])  # those behind it could, if something came
    order = list(rows)
    assert all(order.index(line.split(":")[0]) > order.index(name) for line in lines[1:])
    for branch in branches:  # a current of 8/7 comes to 1, and now every neuron can
        nn.init.constant_(student.get_submodule(branch).bn.bias, 1.15 / len(branches))
    row = next(row for row in student_layers(student, x) if row.name == name)
    assert row.unreachable == 0.0
    assert row.rate == pytest.approx(1 / 3)
    assert not any(line.startswith(name) for line in unable([row]))


@pytest.mark.parametrize("product", ["m", "z"])
def test_an_attention_with_the_kin_s_gain_is_named(product):
    """Eight channels a head, and a gain that needs more than eight coincidences."""
    student, x = settled()
    gain = getattr(student.sgc[1].attention, f"log_gain_{product}")
    most = {"m": 8, "z": 25}[product]
    nn.init.constant_(gain, math.log(0.99 / most / 0.875))
    lines = unable(student_layers(student, x))
    shape = {"m": 2 * 4 * 25 * 25, "z": 16 * 4 * 25}  # the second block's frames are those that left the first
    frames = student.config.block_frames[0]
    size = shape[product] // 4 * frames
    assert lines[0] == f"block2_attention.{product}: none of its {size} neurons can reach the threshold"


def test_a_population_that_could_fire_and_hardly_does_is_named():
    """A single neuron's worth of margin: only all its exciting spikes at once would do, and they
    never come."""
    student, x = settled()
    stc = student.stc[1]
    excess = largest_membrane(student, "block2_stc").amax((1, 2)) / 0.875 - 1.0 / 0.875
    with torch.no_grad():
        stc.conv.bn.bias -= 0.999 * excess.float()
    rows = student_layers(student, x)
    row = next(row for row in rows if row.name == "block2_stc")
    assert row.unreachable < 1.0
    assert row.rate < 1e-4
    assert unable(rows) == [f"block2_stc: fires at {row.rate:.4%}, under 0.01%"]


@pytest.mark.parametrize(
    ("rate", "unreachable", "said"),
    [
        (0.99e-4, 0.0, "a: fires at 0.0099%, under 0.01%"),
        (1e-4, 0.0, None),
        (0.1, 0.99, None),
        (0.0, 0.99, "a: fires at 0.0000%, under 0.01%"),
        (0.0, 1.0, "a: none of its 24 neurons can reach the threshold"),
        (None, None, None),
    ],
)
def test_what_is_said_of_a_row(rate, unreachable, said):
    row = Described("a", (2, 3, 4), 5, 6, 7, rate, unreachable)
    assert unable([row]) == ([] if said is None else [said])


# Settling


def test_settling_gives_the_statistics_of_the_bodies_and_leaves_the_norms_as_they_were(monkeypatch):
    clips = synthetic.read(12, "train").clips
    x = torch.from_numpy(body_inputs(clips, StreamNormaliser.fit(clips, 8))[0])
    student = build({**SMALL, "graph": "ntu-25", "frames": 8})
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [None if i == 2 else 0.01 * (i + 1) for i in range(len(norms))]
    seen, normalised = {}, fused.normalised

    def keep(y, norm):
        seen[norm] = y.flatten(0, 1).detach().double().numpy()
        return normalised(y, norm)

    monkeypatch.setattr(fused, "normalised", keep)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    weights = {name: p.detach().clone() for name, p in student.named_parameters()}
    calibrate_batch_norms(student, x)
    assert [norm.momentum for norm in norms] == momenta
    assert not any(module.training for module in student.modules())
    assert len(seen) == len(norms) == 2 + 3 * 7
    for norm in norms:
        np.testing.assert_allclose(norm.running_mean, seen[norm].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var, seen[norm].var((0, 2, 3), ddof=1), rtol=1e-4, atol=1e-6)
    assert all(bool(sgc.attention.initialised) for sgc in student.sgc)
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, weights[name])}
    assert changed == {f"sgc.{i}.attention.log_gain_{product}" for i in range(3) for product in "mz"}
    assert not any(p.grad is not None for p in student.parameters())


def test_after_settling_the_rates_are_those_of_training():
    """All but the variance: a norm divides by n in training, and keeps what was divided by n -
    1."""
    clips = synthetic.read(12, "train").clips
    x = torch.from_numpy(body_inputs(clips, StreamNormaliser.fit(clips, 8))[0]).double()
    student = build(
        {**SMALL, "graph": "ntu-25", "frames": 8, "fusion": "mean"}
    ).double()  # nothing to measure: double does
    sizes = {}
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda norm, given: sizes.__setitem__(norm, given[0][:, 0].numel()))
    calibrate_batch_norms(student, x)
    settled_rates = {row.name: row.rate for row in student_layers(student, x)[:-1]}
    for norm, n in sizes.items():
        norm.running_var *= (n - 1) / n
    exact = {row.name: row.rate for row in student_layers(student, x)[:-1]}
    training = {}
    with torch.no_grad():
        student.train()(x, training)
    assert exact == {name: float(s.mean()) for name, s in training.items()}
    assert all(0.01 < rate < 0.5 for rate in exact.values())
    for name, rate in settled_rates.items():
        assert rate == pytest.approx(exact[name], abs=0.01)


def test_rates_before_settling_are_others():
    """A batch norm that has seen nothing passes its input on: what is described then is no
    training's state."""
    student, x = settled()
    fresh = build(student.config.to_dict() | {"streams": student.config.streams, "widths": student.config.widths})
    before = {row.name: row.rate for row in student_layers(fresh, x)[:-1]}
    after = {row.name: row.rate for row in student_layers(student, x)[:-1]}
    assert max(abs(before[name] - after[name]) for name in after) > 0.03
