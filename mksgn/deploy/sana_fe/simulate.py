"""Run SANA-FE on the files of a folder: a script for a Python that has sanafe; it does not need mksgn.

    python simulate.py FOLDER/sample-0 --timing detailed

Reads sample-0.yaml and network.json, and writes spikes.csv, perf.csv, messages.csv and summary.json into the
folder sample-0. The chip is SANA-FE's own loihi.yaml. If the network has delays, the buffer between two time
steps moves into the dendrites, which hold the delayed currents: after the dendrites, it would lose those
that no message of the same step passes on.
"""

import argparse
import json
import sys
from importlib.resources import files
from pathlib import Path

# the energy of each core's neurons, a column of perf.csv: it shows how many were updated
LOG_NEURONS = ("model: leaky_integrate_fire", "model: leaky_integrate_fire, log_energy: true")
DELAYS = (
    ("buffer_position: soma", "buffer_position: dendrite"),
    ("buffer_inside_unit: false", "buffer_inside_unit: true"),
)


def architecture(folder: Path, delays: bool) -> Path:
    """Write SANA-FE's description of Loihi into the folder, and return its path."""
    text = files("sanafe.examples").joinpath("loihi.yaml").read_text()
    for old, new in (LOG_NEURONS, *(DELAYS if delays else ())):
        if text.count(old) != 1:
            sys.exit(f"sanafe's loihi.yaml has no line '{old}': is its version not 2.2.9?")
        indent = " " * (text.index(old) - text.rindex("\n", 0, text.index(old)) - 1)
        text = text.replace(old, new.replace(", ", f"\n{indent}"))
    path = folder / "loihi.yaml"
    path.write_text(text)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Run SANA-FE on the files that mksgn-deploy --to sana-fe wrote.")
    parser.add_argument("sample", type=Path, help="a network file, with or without .yaml")
    parser.add_argument("--timing", default="detailed", choices=("simple", "detailed", "cycle"))
    arguments = parser.parse_args()

    import sanafe

    network = arguments.sample.with_suffix(".yaml")
    folder = network.with_suffix("")
    folder.mkdir(exist_ok=True)
    facts = json.loads((network.parent / "network.json").read_text())
    described = sanafe.load_arch(str(architecture(folder, facts["delays"])))
    chip = sanafe.SpikingChip(described)
    chip.load(sanafe.load_net(str(network), described))
    traces = {f"{name}_trace": str(folder / f"{file}.csv") for name, file in TRACES.items()}
    summary = chip.sim(facts["steps"], timing_model=arguments.timing, processing_threads=1, **traces)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, default=str))


TRACES = {"spike": "spikes", "perf": "perf", "message": "messages"}

if __name__ == "__main__":
    main()
