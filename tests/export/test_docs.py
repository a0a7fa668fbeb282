"""The table in docs/export.md is the one that the code generates, and describes exported files."""

import pytest

from mksgn.export import export_to_nir
from mksgn.export.lowering.supported_modules import SUPPORTED, markdown
from tests.support.paths import DOCS
from tests.support.students import calibration, tiny

PAGE = DOCS / "export.md"


def test_the_page_has_the_table_that_the_code_writes():
    page = PAGE.read_text()
    table = page.partition("<!-- supported -->\n")[2].partition("\n<!-- /supported -->")[0]
    assert table == markdown(), (
        "put what mksgn.export.lowering.supported_modules.markdown() returns between the page's marks"
    )


@pytest.mark.parametrize(
    ("attention", "profile"),
    [
        ("self", "structured"),
        ("token", "structured"),
        ("none", "structured"),
        ("token", "portable"),
        ("none", "portable"),
    ],
)
def test_the_table_names_the_nodes_of_a_file_and_no_others(attention, profile):
    model, _ = tiny(attention=attention)
    graph = export_to_nir(model, quantize=8, calibration=calibration(model), profile=profile)
    made_of = {type(module) for module in model.student.modules()}
    expected = {node for row in SUPPORTED if row.module in made_of for node in getattr(row, profile) or ()}
    assert {type(node) for node in graph.nodes.values()} == expected


def test_the_table_names_the_operators_of_onnx_files_and_no_others():
    onnx_file = pytest.importorskip("mksgn.export.onnx.file")
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
    actual = set()
    for attention, bits, profile in (
        ("self", 8, "structured"),
        ("self", None, "structured"),
        ("token", 8, "structured"),
        ("none", 8, "portable"),
    ):
        model, _ = tiny(attention=attention)
        samples = calibration(model) if bits else None
        graph = export_to_nir(model, quantize=bits, calibration=samples, profile=profile)
        operators = {node.op_type for node in onnx_file.from_nir(graph, steps=4, dt=1e-4).graph.node}
        made_of = {type(module) for module in model.student.modules()}
        assert operators <= {name for row in SUPPORTED if row.module in made_of for name in row.onnx}
        actual |= operators
    assert actual == {name for row in SUPPORTED for name in row.onnx}
