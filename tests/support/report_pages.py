"""Hand-made runs for the reports, and readers of HTML and Markdown."""

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from mksgn.bench.energy_models import known_models, price
from mksgn.bench.record import Record
from mksgn.bench.record_io import save
from mksgn.bench.report import page
from mksgn.bench.report.clip import Clip
from mksgn.bench.report.facts import facts_of
from mksgn.bench.theory import theory_of
from mksgn.bench.verdicts import compare_with_published
from mksgn.train.skeletons import graph
from tests.support.records import small_run

GRAPH = graph("nw-ucla-20")


FRAMES, STEPS = 6, 4


POPULATIONS = {  # those of a student: channels, after a stride, and attention's queries and keys
    "encoder": (3, FRAMES, 20),
    "blocks.0.conv": (50, FRAMES // 2, 20),
    "blocks.0.attention.m": (2, FRAMES, 20, 20),
}


def full_run(run: dict[str, Any] | None = None, network: str = "demo") -> Record:
    """Return the small run with its energies and claims."""
    record = Record.model_validate(run or small_run())
    energy = [price(model, record.totals, steps=record.execution.steps) for model in known_models()]
    claims = compare_with_published(
        energy, theory_of(record).energy_mJ, network, data=record.data, accuracy=record.accuracy
    )
    return record.model_copy(update={"energy": energy, "claims": claims})


def trains(seed: int = 0) -> dict[str, np.ndarray]:
    """Return (bodies, S, *shape) bool by population: two bodies, a firing rate of 10 %."""
    rng = np.random.default_rng(seed)
    return {name: rng.random((2, STEPS, *shape)) < 0.1 for name, shape in POPULATIONS.items()}


def write_spikes(path: Path, spikes: dict[str, np.ndarray], joints: np.ndarray | None) -> None:
    arrays = {f"trains/{name}": np.packbits(train) for name, train in spikes.items()}
    arrays |= {f"shape/{name}": np.array(train.shape) for name, train in spikes.items()}
    np.savez(path, **arrays, **({} if joints is None else {"sample/joints": joints}))


def moving_joints() -> np.ndarray:
    """Return (FRAMES, 20, 3) in metres: joints within a metre that move half a metre to the right."""
    still = np.random.default_rng(1).random((20, 3))
    return (still + np.linspace(0, 0.5, FRAMES)[:, None, None] * np.array([1.0, 0, 0])).astype(np.float32)


def manifest() -> dict[str, Any]:
    """Return the parts of a manifest that the reports read."""
    return {
        "schema": "mksgn.manifest/1",
        "data": {
            "graph": GRAPH.name,
            "classes": ["wave", "sit down", "throw"],
            "clips": ["clip-0", "clip-1", "clip-2", "clip-3"],
            "labels": [0, 0, 1, 1],
        },
        "predictions": [0, 0, 1, 2],
        "machine": {"processor": "a processor", "cores": 2, "memory_GiB": 7.8},
        "files": {"run.json": "c" * 64, "spikes.npz": "d" * 64, "report.html": "e" * 64, "report.md": "f" * 64},
    }


def folder_of_run(folder: Path) -> Path:
    """Write a run's folder with a sample clip: run.json, spikes.npz and manifest.json with its hash."""
    save(full_run(), folder / "run.json")
    write_spikes(folder / "spikes.npz", trains(), moving_joints())
    unsealed = json.dumps({**manifest(), "sha256": "0" * 64}, indent=2) + "\n"
    seal = hashlib.sha256(unsealed.encode()).hexdigest()
    (folder / "manifest.json").write_text(unsealed.replace("0" * 64, seal))
    return folder


VOID = {"meta", "br", "wbr", "img", "input"}


class Balanced(HTMLParser):
    """Collects text, tags and attributes, and fails on a tag that is closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.text += "" if tag in ("wbr", "sub", "em") else " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open[-1:] in (["style"], ["script"]) else data


def html_of(record: Record, given: dict[str, Any] | None = None, sample: Clip | str = "No clip.") -> str:
    return page.render(facts_of(record, given or {}), sample)


def text_of(record: Record, given: dict[str, Any] | None = None, sample: Clip | str = "No clip.") -> str:
    return " ".join(Balanced(html_of(record, given, sample)).text.split()).replace("\N{NO-BREAK SPACE}", " ")


def tables_of(text: str) -> list[list[list[str]]]:
    """Return the tables of a Markdown text as rows of cells, as GitHub renders them."""
    tokens, tables = MarkdownIt("commonmark").enable("table").parse(text), []
    for before, token in zip([*tokens], tokens[1:], strict=False):
        if before.type == "table_open":
            tables.append([])
        elif before.type == "tr_open":
            tables[-1].append([])
        if before.type in ("th_open", "td_open"):
            plain = "".join(child.content for child in token.children or [])
            tables[-1][-1].append(plain)
    return tables
