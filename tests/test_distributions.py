"""What `make dist` builds: the wheel has every file of the package and works away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")
COMMANDS = """
mksgn.train.cli demo --data synthetic --limit 12 --epochs 1 --out run
mksgn.export.cli run/model.pt --to nir --quantize 8 --calibration synthetic --verify 2
mksgn.bench.cli run run/model.nir --data synthetic --limit 2 --backend emulator -o run/bench
mksgn.bench.cli check run/bench
"""


def run(arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    if not (CHECKOUT / ".git").exists():
        pytest.skip("which files belong to the package is known in a git checkout only")
    return set(run(["git", "ls-files"], cwd=CHECKOUT).splitlines())


@pytest.fixture(scope="module")
def dist(tmp_path_factory, tracked):
    pytest.importorskip("build", reason="part of the dev extra")
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"  # setuptools writes into the folder that it builds from
    for name in tracked:
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
    run([sys.executable, "-m", "build", "--no-isolation", "-o", str(folder), str(source)])
    return folder


@pytest.mark.slow
def test_the_wheel_has_the_files_of_the_package(dist, tracked):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("mksgn/")}
    assert packed == {name for name in tracked if name.startswith("mksgn/")}


@pytest.mark.slow
def test_the_sdist_has_the_files_of_the_checkout(dist, tracked):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in tracked if not name.startswith(NOT_IN_SDIST)} <= packed


@pytest.mark.slow
def test_the_wheel_goes_from_clips_to_a_checked_run(dist, tmp_path):
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    wheel = str(next(dist.glob("*.whl")))
    run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(site), wheel])
    alone = {**os.environ, "PYTHONPATH": str(site), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    where = run([sys.executable, "-c", "import mksgn; print(mksgn.__file__)"], cwd=home, env=alone)
    assert where.startswith(str(site))
    for command in COMMANDS.strip().splitlines():
        shown = run([sys.executable, "-m", *command.split()], cwd=home, env=alone)
    assert "no fault found" in shown
