"""Two processes train one student: one writes, each sees its share, and both hold the same weights."""

import json
import subprocess
import sys

import torch

from mksgn.train.checkpoint import load
from mksgn.train.parallel import Group

TINY = "student: {frames: 4, stream_channels: 2, widths: [4, 8], heads: 2, kernel: 3}\nepochs: 2\nbatch: 8\n"


def test_one_process_alone_is_a_group_that_changes_nothing():
    group = Group()
    index = torch.arange(7)
    assert group.leads
    assert group.size == 1
    assert torch.equal(group.share(index), index)
    layer = torch.nn.BatchNorm1d(3)
    group.take_from_leader(layer)
    group.average_buffers(layer)
    group.sum_gradients(layer.parameters())
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert group.sums(1.5, 2) == [1.5, 2.0]
    group.close()


def test_shares_of_a_batch_cover_it_once(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(Group().share(torch.arange(8)))
    assert sorted(torch.cat(parts).tolist()) == list(range(8))
    assert {len(part) for part in parts} == {2, 3}


def test_torchrun_leaves_one_training(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "mksgn.train",
    ]
    options = [tmp_path / "tiny.yaml", "--data", "synthetic", "--limit", 20, "--out", tmp_path]
    done = subprocess.run([*launch, *map(str, options)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2/2") == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    model = load(tmp_path / "model.pt")
    assert model.training["processes"] == 2
    assert all(
        torch.isfinite(value).all() for value in model.student.state_dict().values() if value.is_floating_point()
    )
