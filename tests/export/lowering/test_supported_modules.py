"""Students that cannot be exported: the error names the module's path, the reason and the remedy."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mksgn.export import export_to_nir
from mksgn.export.errors import (
    CannotFireError,
    NonFiniteWeightsError,
    SoftResetError,
    TrainingModeError,
    UnsupportedModuleError,
)
from mksgn.export.lowering.supported_modules import SUPPORTED, check_student
from mksgn.train.neurons import LIF
from tests.support.students import tiny


@pytest.fixture(scope="module")
def trained():
    return tiny()[0]


@pytest.fixture
def student(trained):
    return copy.deepcopy(trained.student)


class Leaky(nn.Module):
    """A neuron with the attributes that describe the reset in SpikingJelly and snnTorch."""

    def __init__(self, **how):
        super().__init__()
        for name, value in how.items():
            setattr(self, name, value)


def test_every_student_that_train_makes_passes():
    for changes in (
        {},
        {"attention": "none"},
        {"attention": "token"},
        {"adjacency": "learned"},
        {"fusion": "mean", "streams": ("joint",)},
    ):
        model, _ = tiny(**changes)
        check_student(model.student)
        actual = {type(module) for module in model.student.modules()}
        assert actual <= {row.module for row in SUPPORTED}


@pytest.mark.parametrize("how", [{"v_reset": None}, {"reset_mechanism": "subtract"}])
def test_a_soft_reset(student, how):
    student.stc[1].sn = Leaky(**how)
    with pytest.raises(SoftResetError, match=r"stc\.1\.sn: .*Leaky subtracts its threshold .* train with mksgn's LIF"):
        check_student(student)


@pytest.mark.slow
def test_a_real_neuron_of_spikingjelly_that_subtracts(student):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    student.smf.sn = neuron.LIFNode(v_reset=None)
    with pytest.raises(SoftResetError, match=r"smf\.sn: spikingjelly's LIFNode subtracts"):
        check_student(student)
    student.smf.sn = neuron.LIFNode(v_reset=0.0)
    with pytest.raises(
        UnsupportedModuleError, match=r"smf\.sn: spikingjelly's LIFNode has no encoding here; .* docs/export\.md lists"
    ):
        check_student(student)


def test_a_module_without_an_encoding(student):
    student.sgc[0].skip.conv = nn.Sequential(student.sgc[0].skip.conv, nn.MaxPool2d(1))
    with pytest.raises(UnsupportedModuleError, match=r"sgc\.0\.skip\.conv: torch's Sequential has no encoding here"):
        check_student(student)


def test_batch_norm_in_training_mode(trained, student):
    student.stc[0].conv.bn.train()
    with pytest.raises(
        TrainingModeError, match=r"stc\.0\.conv\.bn: batch norm is in training mode.* call model\.eval\(\)"
    ):
        export_to_nir(replace(trained, student=student))


def test_batch_norm_without_statistics(student):
    student.ssc.bn = nn.BatchNorm2d(student.ssc.bn.num_features, track_running_stats=False).eval()
    with pytest.raises(TrainingModeError, match=r"ssc\.bn: batch norm keeps no running statistics"):
        check_student(student)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(student, value):
    with torch.no_grad():
        student.sgc[1].graph.weight.view(-1)[:3] = value
    with pytest.raises(NonFiniteWeightsError, match=r"sgc\.1\.graph\.weight: 3 of \d+ weights are not finite"):
        check_student(student)


def test_a_population_that_cannot_fire(student):
    with torch.no_grad():
        student.sgc[0].qkv.bn.weight.fill_(1e-3)
        student.sgc[0].qkv.bn.bias.zero_()
    with pytest.raises(
        CannotFireError,
        match=r"block1_qkv: the membrane potential reaches at most 0\.\d+, its threshold is 1; .* rate_floor",
    ):
        check_student(student)


def test_a_map_that_cannot_fire(student):
    with torch.no_grad():
        student.sgc[1].attention.log_gain_m.fill_(-6.0)
    with pytest.raises(CannotFireError, match=r"block2_attention\.m: the membrane potential reaches at most"):
        check_student(student)


def test_another_time_constant(student):
    student.stc[0].sn = LIF(tau=3.0)
    with pytest.raises(UnsupportedModuleError, match=r"stc\.0\.sn: tau 3\.0 differs from the student's 2\.0"):
        check_student(student)


def test_another_threshold_is_exported(trained, student):
    student.stc[0].sn = LIF(tau=2.0, threshold=0.5)
    graph = export_to_nir(replace(trained, student=student))
    assert 0.4999 < graph.nodes["block1_stc"].v_threshold.max() < 0.5
    assert graph.nodes["block2_stc"].v_threshold.max() > 0.9999
