"""The record's counts of a run compared with those of brute force, field by field.

`python -m tests.support.compare_counts MODEL.nir --data SOURCE` runs a file, counts its events by both,
and prints where they differ (exit code 3).
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mksgn.bench import counters
from mksgn.deploy import compile_graph, run
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.export.graph import files
from mksgn.train.datasets import open_source
from tests.support.brute_force import KINDS, Census, Counts, count

SUMMED = ("spikes", "syn_ops", "coincidences", "neuron_updates", "product_units")
MESSAGES = ("axon_out", "spikes_in")


def differences(census: Census, layers: list[Any], totals: Any, clips: int) -> list[str]:
    """List the fields of layers and totals that differ from the census, as `layer.field: stated, counted`."""
    lines = []
    if (stated := sorted(layer.name for layer in layers)) != (names := sorted(census.layers)):
        lines.append(f"layers: {stated}, counted {names}")
    for layer in layers:
        if (counted := census.layers.get(layer.name)) is not None:
            for name, value in vars(counted).items():
                stated = layer.memory.arrivals if name == "arrivals" else getattr(layer, name)
                if stated != value:
                    lines.append(f"{layer.name}.{name}: {stated}, counted {value}")
    for name, value in per_clip(census, clips).items():
        if getattr(totals, name) != value:
            lines.append(f"totals.{name}: {getattr(totals, name)}, counted {value}")
    return lines


def compared(census: Census) -> int:
    """Number of fields that `differences` compares."""
    return len(census.layers) * len(fields(Counts)) + len(per_clip(census, 1))


def per_clip(census: Census, clips: int) -> dict[str, Any]:
    """Totals of the record that follow from the census."""
    chip = [layer for layer in census.layers.values() if layer.place == "chip"]
    names = [*SUMMED, *(MESSAGES if any(layer.axon_out is not None for layer in chip) else ())]
    total = {name: sum(getattr(layer, name) for layer in chip) for name in names}
    total |= {
        "Effective_ACs": sum(layer.effective_acs for layer in chip),
        "Dense": sum(layer.dense_ops for layer in census.layers.values()),
        "dendrite_updates": total["neuron_updates"],
        "active_updates": total["spikes"] + total["coincidences"],
        "host_macs": census.macs,
        "Effective_MACs": census.effective_macs,
        "host_macs_every_step": census.macs * census.steps,
    }
    kinds = {kind: sum(layer.syn_ops_by_kind[kind] for layer in chip) / clips for kind in KINDS}
    per_step = {"host_to_chip_spikes_per_step": census.host_to_chip_spikes / (clips * census.steps)}
    return {name: value / clips for name, value in total.items()} | per_step | {"syn_ops_by_kind": kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="synthetic, nw-ucla:PATH, …")
    parser.add_argument("--split")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--backend", choices=("emulator", "lava"), default="emulator")
    parser.add_argument("--precision", choices=("fixed", "float"), default="fixed")
    parser.add_argument("--json", action="store_true", help="both counts, as JSON")
    args = parser.parse_args()
    graph = files.read(args.model)
    clips = open_source(args.data, split=args.split, part="test", limit=args.limit)
    program = compile_graph(graph, precision=args.precision)
    execution = run(program, clip_inputs(graph, program, clips).inputs, backend=args.backend)
    placement = place(program, LOIHI2)
    rows = counters.layers(program, execution, placement)
    totals = counters.totals(program, execution, rows, len(clips))
    started = time.perf_counter()
    census = count(graph, execution.spikes, {placed.name: placed.core_of() for placed in placement.populations})
    seconds = time.perf_counter() - started
    differ = differences(census, rows, totals, len(clips))
    summary = {
        "backend": args.backend,
        "clips": len(clips),
        "bodies": execution.samples,
        "seconds_of_counting": seconds,
    }
    summary |= {"fields": compared(census), "fields_that_differ": len(differ), "differences": differ}
    if args.json:
        stated = {"layers": [row.model_dump() for row in rows], "totals": totals.model_dump()}
        print(json.dumps({**summary, "counters": stated, "brute_force": asdict(census)}, indent=2))
        return 3 if differ else 0
    print(f"{'per clip':30} {args.backend:>22} {'brute force':>22}")
    for name, value in per_clip(census, len(clips)).items():
        if not isinstance(value, dict):
            print(f"{name:30} {getattr(totals, name):22,.2f} {value:22,.2f}")
    print("\n".join(f"{key}: {value}" for key, value in summary.items() if key != "differences"))
    print("\n".join(differ))
    return 3 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
