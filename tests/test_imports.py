"""The two rules of the layout: a stage imports only from the stages before it, and lava is imported in mksgn/deploy/lava alone."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "mksgn"
STAGES = ("common", "train", "export", "deploy", "bench")  # each imports from itself and those before it
FILES = sorted(path for stage in STAGES for path in (ROOT / stage).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_files_are_found():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(STAGES)


def test_a_stage_imports_only_from_the_stages_before_it():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports(path)
        if name.startswith("mksgn.")
        and name.split(".")[1] not in STAGES[: STAGES.index(path.relative_to(ROOT).parts[0]) + 1]
    ]
    assert not wrong


def test_lava_is_imported_in_its_own_folder_alone():
    # the backend is chosen there, when it runs: nothing of Lava is imported with these files
    lazy = {ROOT / "deploy" / "execute.py", ROOT / "deploy" / "benchmark" / "measure.py"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if not path.is_relative_to(ROOT / "deploy" / "lava")
        for name in imports(path)
        if name.split(".")[0] == "lava" or (name.startswith("mksgn.deploy.lava") and path not in lazy)
    ]
    assert not wrong


def test_importing_every_stage_does_not_import_lava():
    import subprocess
    import sys

    code = (
        "import sys, mksgn.bench.cli, mksgn.deploy.cli; sys.exit(any(m.split('.')[0] == 'lava' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lava_finds_nothing_but_processes_in_their_folder():
    names = {path.name for path in (ROOT / "deploy" / "lava" / "processes").iterdir() if path.name != "__pycache__"}
    assert names == {"__init__.py", "leaf.py", "tap.py"}
