"""Which files the folders of runs and sweeps hold, and which are replaced together; imports nothing heavy."""

from mksgn.common.replacement import FileSet
from mksgn.deploy.run_files import MANIFEST_FILE, SPIKES_FILE

RUN_FILE = "run.json"
LOG_FILE = "run.log"
PROGRESS_FILE = "progress.npz"
RUN_FILES = (RUN_FILE, SPIKES_FILE, LOG_FILE)
REPORT_FILES = ("report.html", "report.md")
RUN = FileSet(
    "run",
    names=(*RUN_FILES, MANIFEST_FILE, *REPORT_FILES, PROGRESS_FILE),
    results=(RUN_FILE, SPIKES_FILE, MANIFEST_FILE),
    resumable=(MANIFEST_FILE, PROGRESS_FILE),
)
REPORT = FileSet("report", names=REPORT_FILES, results=())

GRID_FILE = "grid.json"
SWEEP = FileSet(
    "sweep",
    names=("sweep.json", "sweep.md", GRID_FILE, "points", "networks", "progress"),
    results=("sweep.json", "sweep.md"),
    resumable=(GRID_FILE,),
)
