"""MK-SGN from clips to a report, in Python: what docs/tutorial.md does with commands.

Takes the trained weights of the demo, so nothing is downloaded or trained. Runs in the emulator, and in Lava too if it
is installed. Half a minute on two cores.

    python examples/mksgn_clips.py          # writes runs/mksgn_clips/
"""

from pathlib import Path

from mksgn.bench import measure
from mksgn.bench.theory import theory_of
from mksgn.deploy.backends import lava_installed
from mksgn.export import export_to_nir, write_nir
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs

WEIGHTS, OUT = Path(__file__).parent / "demo" / "model.pt", Path("runs/mksgn_clips")
CLIPS = 20


def main() -> None:
    """Export, run, price, and write the run's folder with its report."""
    trained = checkpoint.load(WEIGHTS)
    training = open_source("synthetic", part="train", limit=24)
    held_out = open_source("synthetic", part="test", limit=CLIPS)
    print(f"{len(held_out.clips)} clips of {len(held_out.classes)} actions: {', '.join(held_out.classes)}")

    # The weights become integers here, once. Everything later executes the file.
    bodies, _ = body_inputs(training.clips, trained.normaliser)
    OUT.mkdir(parents=True, exist_ok=True)
    model = OUT / "model.nir"
    write_nir(export_to_nir(trained, quantize=8, calibration=bodies), model)

    run = measure(model, held_out)
    record = run.record
    print(run)
    print(f"{record.parity.mismatches} of {record.parity.decisions:,} decisions differ from {record.parity.against}")
    if lava_installed():  # the same clips as Lava Processes, compared decision by decision
        parity = measure(model, held_out, backend="lava").record.parity
        print(f"Lava: {parity.mismatches} of {parity.decisions:,} decisions differ from {parity.against}")

    theory = theory_of(record)
    counted = run.energy["horowitz45-fp32"].priced_mJ
    print(f"arithmetic at the paper's prices: {counted:.6f} mJ counted, {theory.energy_mJ:.6f} mJ by its formula")
    print(run.report(OUT))


if __name__ == "__main__":
    main()
