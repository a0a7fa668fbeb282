"""Feed changed files to every reader, led by the lines that they reach (atheris, which is installed by hand).

    pip install atheris && python -m tests.fuzz --seconds 3600 --json runs/fuzz.json

The time is divided among the readers. A reader that raises anything but the package's own errors, runs for more than
thirty seconds or takes more than two gigabytes is a finding: its file is kept, and the exit code is 1. A later call begins
from what an earlier one has found.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SECONDS, MEGABYTES, BYTES = 30, 2048, 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for all readers together")
    parser.add_argument("--target", action="append", help="a reader; all by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"), help="the files that reached new lines")
    parser.add_argument("--json", type=Path, help="write the table here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.child:
        return fuzz(options.child, rest)
    from tests.fuzz.targets import TARGETS

    names = options.target or list(TARGETS)
    rows = [_run(name, max(1, options.seconds // len(names)), options.folder / name) for name in names]
    print(
        f"{len(rows)} readers, {sum(row['inputs'] for row in rows):,} inputs, {sum(row['findings'] for row in rows)} findings"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(any(row["findings"] for row in rows))


def _run(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Fuzz one reader in a process of its own, and print its row."""
    from tests.fuzz.targets import TARGETS

    corpus, found = folder / "corpus", folder / "findings"
    for place in (corpus, found):
        place.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(TARGETS[name].contents()):
        (corpus / f"seed-{index}").write_bytes(content)
    limits = (f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={BYTES}")
    # otherwise a slow input of a busy machine is kept as a finding would be
    limits += (f"-report_slow_units={SECONDS}",)
    command = [sys.executable, "-m", "tests.fuzz", "--child", name, *limits]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "-print_final_stats=1", f"-artifact_prefix={found}/", str(corpus)], capture_output=True, text=True
    )
    (folder / "log.txt").write_text(done.stdout + done.stderr)
    counted = re.findall(r"number_of_executed_units:\s*(\d+)|^#(\d+)\s", done.stderr, re.MULTILINE)
    inputs = max((int(a or b) for a, b in counted), default=0)
    findings = len(list(found.iterdir()))
    row = {"target": name, "inputs": inputs, "seconds": round(time.monotonic() - began), "findings": findings}
    if done.returncode and not findings:
        row |= {"findings": 1, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["mksgn"]):
        from mksgn.common.errors import MksgnError
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    folder = TemporaryDirectory(prefix="fuzz-")
    path = Path(folder.name) / target.file

    def once(content: bytes) -> None:
        path.write_bytes(content)
        try:
            target.read(path)
        except MksgnError as error:
            if len(str(error).splitlines()) > 1 or len(str(error)) > 2000:
                raise RuntimeError(f"a refusal of several lines, or too long: {error}") from error

    atheris.Setup([sys.argv[0], *arguments], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
