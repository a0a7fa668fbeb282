"""A quantised student and its ONNX model, made once for all tests of this folder."""

import nir
import numpy as np
import pytest

from mksgn.export import export_to_nir
from mksgn.export.onnx import file as onnx_file
from tests.support.students import calibration, tiny


@pytest.fixture(scope="package")
def student() -> tuple[nir.NIRGraph, np.ndarray]:
    model, inputs = tiny()
    return export_to_nir(model, quantize=8, calibration=calibration(model)), inputs


@pytest.fixture(scope="package")
def student_model(student):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
    return onnx_file.from_nir(student[0], steps=4, dt=1e-4)
