"""Execute the notebooks of examples/ and store their outputs: `python -m scripts.notebooks examples/*.ipynb`.

What differs between machines is left out: times, the interpreter, and the paths of the environment. A cell that fails
or warns is an error. tests/test_examples.py executes the notebooks the same way.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_TIMEOUT_S = 300


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Execute a notebook in a copy of its folder, so that what it writes is not left beside it.

    Args:
        path: The notebook.
        folder: Empty folder for the copy.

    Returns:
        The notebook with its outputs, without what differs between machines.

    Raises:
        CellExecutionError: A cell failed.
        ValueError: A cell wrote to stderr.
    """
    copy = shutil.copytree(path.parent, folder / "examples", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    notebook = nbformat.read(path, as_version=4)
    # through sockets in the folder: no port is opened, and nothing is left in the user's folders
    sockets = Config(KernelManager={"transport": "ipc", "connection_file": str(folder / "kernel.json")})
    client = NotebookClient(
        notebook, config=sockets, kernel_name="python3", timeout=CELL_TIMEOUT_S, record_timing=False
    )
    client.execute(cwd=str(copy))
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if printed := [each.text for each in cell.get("outputs", []) if each.get("name") == "stderr"]:
            raise ValueError(f"{path.name}: {''.join(printed)}")
    return notebook


def main() -> None:
    """Execute the notebooks that are named, and write them back."""
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(Path(name).resolve(), Path(folder)), name)
        print(name)


if __name__ == "__main__":
    main()
