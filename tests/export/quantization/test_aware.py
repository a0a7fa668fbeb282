"""Quantisation-aware training: the forward pass is the exported file, and the gradient passes straight through."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mksgn.deploy import compile_graph, run
from mksgn.export import export_to_nir
from mksgn.export.errors import ExportError, RangeError
from mksgn.export.graph import files
from mksgn.export.graph.metadata import json_of
from mksgn.export.lowering.fold import array
from mksgn.export.quantization.aware import QuantizationAwareStudent, choose_scales, quantization_aware
from mksgn.export.quantization.fixed import FixedQuantiser
from mksgn.export.verification.parity import compare
from mksgn.export.verification.verify import reference_spikes, torch_spikes
from mksgn.train import checkpoint
from mksgn.train.checkpoint import Quantization, TrainedModel
from mksgn.train.datasets import synthetic
from mksgn.train.layers import GraphConvBN, folded_norm
from mksgn.train.student import Student
from mksgn.train.transforms import body_inputs
from tests.support.students import tiny
from tests.support.tiers import one_in

TRAINING = synthetic.read(12, "train")


def bodies(model: TrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, clip_of = body_inputs(TRAINING.clips, model.normaliser)
    return torch.from_numpy(inputs), torch.from_numpy(TRAINING.labels)[torch.from_numpy(clip_of)]


def fit(network: nn.Module, x: torch.Tensor, labels: torch.Tensor, steps: int, rate: float) -> list[float]:
    """The losses of a few steps on all bodies."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(network.train()(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def trained(bits: int, steps: int = 3, **changes) -> tuple[QuantizationAwareStudent, TrainedModel, np.ndarray]:
    """A network after a few steps, what is saved of it, and held-out bodies."""
    model, inputs = tiny(**changes)
    network = quantization_aware(model, bits, TRAINING)
    fit(network, *bodies(model), steps, 3e-3)
    saved = TrainedModel(network.student, model.normaliser, model.training, quantization=network.quantization)
    return network.eval(), saved, inputs


CASES = [
    (bits, changes)
    for changes in (
        {},
        {"attention": "none"},
        {"attention": "token"},
        {"adjacency": "learned"},
        {"attention": "none", "adjacency": "learned"},
    )
    for bits in (4, 8, 2)
]


@pytest.mark.parametrize(("bits", "changes"), one_in(15, CASES))
def test_the_forward_pass_is_the_exported_file(bits, changes, tmp_path):
    network, saved, inputs = trained(bits, **changes)
    checkpoint.save(saved, tmp_path / "model.pt")
    files.write(export_to_nir(tmp_path / "model.pt", quantize=bits), tmp_path / "model.nir")
    graph = files.read(tmp_path / "model.nir")
    assert json_of(graph, "quantization")["bits"] == bits
    spikes, _ = torch_spikes(network, inputs)
    expected, _ = reference_spikes(graph, inputs, steps=4, dt=1e-4)
    parity = compare("training ↔ NIR reference", expected, spikes)
    parity.check(tmp_path)
    assert parity.mismatches == 0
    assert [layer.layer for layer in parity.layers] == list(spikes)
    assert expected["smf"].any()
    assert expected["block2_stc"].any()


@pytest.mark.slow
def test_the_emulator_runs_the_same_network():
    network, saved, inputs = trained(4)
    program = compile_graph(export_to_nir(saved, quantize=4))
    spikes, _ = torch_spikes(network, inputs)
    over_steps = np.repeat(inputs[:, None], 4, axis=1)
    parity = compare("training ↔ emulator", run(program, over_steps).spikes, spikes)
    assert (parity.mismatches, parity.decisions) == (0, 1_363_200)


@pytest.mark.parametrize(
    "changes", one_in(3, [{}, {"attention": "none", "adjacency": "learned"}, {"attention": "token"}])
)
def test_the_integers_are_the_file_s(changes):
    """Bit for bit, after steps in which the weights moved."""
    network, saved, inputs = trained(3, **changes)
    torch_spikes(network, inputs[:1])
    before = export_to_nir(tiny(**changes)[0], quantize=3, calibration=bodies(saved)[0].numpy())
    file, differs = export_to_nir(saved, quantize=3), set()
    assert list(network.nodes) == list(file.nodes)
    for name, node in file.nodes.items():
        for field in ("adjacency", "weight", "bias", "v_threshold", "gain_m", "threshold_m", "threshold_z", "scale"):
            if hasattr(node, field):
                np.testing.assert_array_equal(getattr(network.nodes[name], field), getattr(node, field), err_msg=name)
                if not np.array_equal(getattr(node, field), getattr(before.nodes[name], field)):
                    differs.add(field)
    assert {"weight", "bias"} <= differs


def test_an_export_needs_no_clips_and_no_other_width():
    _, saved, _ = trained(4, steps=1)
    scales = json_of(export_to_nir(saved, quantize=4), "quantization")["populations"]
    assert {name: scale["scale"] for name, scale in scales.items()} == saved.quantization.scales
    exponents = {node: e for scale in scales.values() for node, e in scale["weight_exponents"].items()}
    assert exponents == saved.quantization.exponents != {}
    saved.quantization = replace(saved.quantization, exponents={"block9_stc_conv": 1})
    with pytest.raises(ExportError, match=r"exponents for block9_stc_conv, which the student does not have"):
        export_to_nir(saved, quantize=4)
    with pytest.raises(ExportError, match="was trained for 4 bits, not 8; quantise it to 4"):
        export_to_nir(saved, quantize=8)


def test_a_weight_that_outgrew_a_range_is_refused_by_the_export():
    model, _ = tiny()
    network = quantization_aware(model, 8, TRAINING)
    with torch.no_grad():
        network.student.stc[0].conv.bn.bias.fill_(1e4)
    saved = TrainedModel(network.student, model.normaliser, quantization=network.quantization)
    with pytest.raises(RangeError, match=r"block1_stc: bias allows a scale of .*smaller learning_rate"):
        export_to_nir(saved, quantize=8)


SCALE = 32


def on_the_lattice() -> TrainedModel:
    """A student whose folded numbers are integers of SCALE, so that rounding changes none of them.

    Batch norms are the identity and a bias, adjacencies 0 and 1, gains of attention 4. No membrane of that
    lattice lies between the thresholds, 1 + 2^-13, and their rounded values.
    """
    model, _ = tiny(fusion="mean")
    student = model.student
    norms = {id(module.bn): module for module in student.modules() if hasattr(module, "bn")}
    with torch.no_grad():
        for module in norms.values():
            gain, shift = folded_norm(module.bn)
            weight = module.weight if isinstance(module, GraphConvBN) else module.conv.weight
            weight.copy_(torch.round(weight * gain.view(-1, 1, 1, 1) * SCALE / 2) * 2 / SCALE)
            module.bn.weight.fill_(1.0)
            module.bn.bias.copy_(torch.round(shift * SCALE) / SCALE)
            module.bn.running_mean.zero_()
            module.bn.running_var.fill_(1 - module.bn.eps)
            if isinstance(module, GraphConvBN):
                module.adjacency.copy_((module.adjacency != 0).float())
        for neuron in student.neurons().values():
            neuron.threshold.fill_(1 + 2.0**-13)
        for sgc, _ in student.blocks:
            sgc.attention.log_gain_m.fill_(math.log(4))
            sgc.attention.log_gain_z.fill_(math.log(4))
        values = student.config.block_frames[-1] * student.config.joints
        student.fc.weight.copy_(torch.round(student.fc.weight / values * 2**14) * values / 2**14)
        student.fc.bias.copy_(torch.round(student.fc.bias * 2**15) / 2**15)
    return model


def lattice_scales(student: Student) -> Quantization:
    scales = dict.fromkeys(student.neurons(), float(SCALE)) | {"readout": 2.0**15}
    return Quantization(8, scales | {name: 128.0 for name in scales if "attention" in name})


def test_the_gradient_is_the_float_network_s_where_rounding_changes_nothing():
    model = on_the_lattice()
    student = copy.deepcopy(model.student)
    network = QuantizationAwareStudent(copy.deepcopy(student), model.normaliser, lattice_scales(student))
    x, labels = bodies(model)
    found, expected = {}, {}
    F.cross_entropy(network.train()(x, found), labels).backward()
    F.cross_entropy(student.eval()(x, expected), labels).backward()
    for name, spikes in expected.items():
        assert torch.equal(found[name], spikes), name
        assert spikes.any(), name
    for (name, own), wanted in zip(network.student.named_parameters(), student.parameters(), strict=True):
        if wanted.grad is None:  # of the fusion's weights, which are fixed
            continue
        assert wanted.grad.any(), name
        error = float((own.grad - wanted.grad).norm() / wanted.grad.norm())
        assert error < 1e-3, (name, error)


def test_a_clipped_weight_gets_no_gradient():
    model = on_the_lattice()
    network = QuantizationAwareStudent(model.student, model.normaliser, lattice_scales(model.student))
    weight, (x, labels) = model.student.smf.current.conv.weight, bodies(model)
    with torch.no_grad():
        weight[0, 0, 0, 0], weight[1, 0, 0, 0] = 255.5 / SCALE, 252.5 / SCALE  # 255 is still rounded to 254
    F.cross_entropy(network(x), labels).backward()
    assert weight.grad[0, 0, 0, 0] == 0
    assert weight.grad[1, 0, 0, 0] != 0
    written = network.nodes["smf_conv"].weight / network.quantiser.units["smf_conv"]
    assert (written[0, 0, 0, 0], written[1, 0, 0, 0]) == (254, 252)


def test_statistics_are_frozen_and_all_parameters_are_trained():
    model, _ = tiny()
    network = quantization_aware(model, 8, TRAINING)
    before = copy.deepcopy(network.student.state_dict())
    fit(network, *bodies(model), 1, 1e-3)
    buffers = {name for name, _ in network.student.named_buffers()}
    for name, value in network.student.state_dict().items():
        assert torch.equal(value, before[name]) == (name in buffers), name
    assert not network.student.training
    state = model.student.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in before)  # the model itself stays


@pytest.mark.slow
def test_training_improves_a_network_of_three_bits():
    model, _ = tiny(attention="none")
    x, labels = bodies(model)
    fit(model.student, x, labels, 20, 1e-2)
    model.student.eval()
    network = quantization_aware(model, 3, TRAINING)

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(network.eval()(x), labels))

    quantised_after_training = loss()
    fit(network, x, labels, 20, 1e-2)
    assert loss() < 0.9 * quantised_after_training


def test_the_quantiser_writes_units_of_the_scales():
    """A weight of the file is an even integer times its unit, which a factor takes to the float weight."""
    model, _ = tiny(attention="none")
    quantization = choose_scales(model.student, model.normaliser, 8, bodies(model)[0].numpy())
    graph = export_to_nir(model)
    quantiser = FixedQuantiser(graph, quantization, 1e-4)
    quantiser.quantise(graph.nodes)
    weight = quantiser.nodes["block1_stc_conv"].weight / quantiser.units["block1_stc_conv"]
    np.testing.assert_array_equal(weight % 2, 0)
    scale = quantization.scales["block1_stc"]
    clipped = np.clip(graph.nodes["block1_stc_conv"].weight * scale, -254, 254)
    assert np.abs(weight - clipped).max() <= 1.0001
    assert quantiser.factors["block1_stc_conv"] == quantiser.units["block1_stc_conv"] * scale
    assert array(model.student.fc.weight).any()
