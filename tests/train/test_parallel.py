"""Two processes train one student: one writes, each sees its share, and both hold the same
weights."""

import json
import subprocess
import sys

import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train.checkpoint import load
from mksgn.train.datasets import open_source
from mksgn.train.evaluate import predict, top1
from mksgn.train.parallel import Group, check_device
from mksgn.train.resume import weights_digest
from mksgn.train.transforms import body_inputs
from tests.support.refusals import refusal

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


SCRIPT = """
import os, sys
from pathlib import Path
from mksgn.train import cli, loop, resume
from mksgn.train.datasets import synthetic

synthetic.DEFAULT_LIMIT["test"] = 30
train = loop.train

def train_and_digest(*arguments, **options):
    model = train(*arguments, **options)
    Path(sys.argv[-1], "digest" + os.environ["RANK"]).write_text(resume.weights_digest(model.student))
    return model

loop.train = train_and_digest
cli.main()
"""


@pytest.mark.slow
def test_torchrun_leaves_one_training_and_all_processes_hold_its_weights(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "both.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [tmp_path / "tiny.yaml", "--data", "synthetic", "--limit", 21, "--out", tmp_path]
    done = subprocess.run(
        [*launch, *map(str, (tmp_path / "both.py", *options))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2/2") == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    model = load(tmp_path / "model.pt")
    assert model.training["processes"] == 2
    assert {(tmp_path / f"digest{rank}").read_text() for rank in range(2)} == {weights_digest(model.student)}
    # each process evaluated its share of the held-out clips: together they equal one process
    clips = open_source("synthetic", part="test", limit=30)
    logits = predict(model.student, *body_inputs(clips.clips, model.normaliser), len(clips))
    assert model.training["held_out_top1"] == top1(logits, clips.labels)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:x", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(device):
    if torch.cuda.is_available() and device.startswith("cuda"):
        pytest.skip("there is one")
    with pytest.raises(BadInputError, match=f"--device {device}: not available here"):
        check_device(device, "float32")
    check_device("cpu", "mixed")


@pytest.mark.parametrize("device", ["foo", "cuda", "cuda:0", "cuda:x", "cuda:²", "", "cpu:0"])
def test_a_device_that_is_not_there_is_refused_in_one_line(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refusal(lambda: check_device(device)) == f"--device {device}: not available here; use cpu"


@pytest.mark.parametrize("value", ["abc", "", "-1", "1" * 5000])
def test_an_environment_that_torchrun_did_not_make_is_refused(value, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", value)
    assert refusal(Group).startswith("environment: WORLD_SIZE is '")
