"""report.md: the page's facts as tables."""

import re

from mksgn.bench.report import markdown
from mksgn.bench.report.facts import facts_of
from tests.support.report_pages import full_run, manifest, tables_of


def test_the_markdown_has_the_pages_facts_in_tables():
    text = markdown.render(facts_of(full_run(), manifest())).replace("\N{NO-BREAK SPACE}", " ")
    tables = tables_of(text)
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    expected = [
        "Claims",
        "Energy",
        "Comparison with a conventional network",
        "Layers",
        "Classes",
        "Parity",
        "Placement",
    ]
    assert headings == [*expected, "Provenance"]
    cells = {row[0]: row for table in tables for row in table}
    assert cells["Accuracy, top-1"][1] == "75.0 % (3 of 4; 95 % interval 30.1 % to 95.4 %)"
    assert cells["blocks.0.conv"][2:6] == ["100", "25.0 %", "100", "2.0 %"]
    assert cells["blocks.0.attention.m"][-3:] == ["3", "172", "222"]
    assert cells["sit down"] == ["sit down", "2", "50.0 %", "throw"]
    assert cells["torch"] == ["torch", "4,800", "0", "–"]
    assert cells["neurons per core"] == ["neurons per core", "100", "8,192", "1.2 %", "–"]
    assert cells["output axons per core"][2:4] == ["not published", "not checked"]
    assert cells["run.json"][1] == "sha256 " + "c" * 64
    assert cells["horowitz45-fp32"][2] == "48.7 nJ"
    assert [row[0] for row in tables[1][1:]] == [f"{c.name} ({c.source})" for c in full_run().claims]
    assert "report.html" not in cells
