"""A chip of your own: does a network fit, and what would it take in energy and time?

The chip's limits, its prices and its latencies are the three YAML files next to this program; every figure in them is
invented. Takes the weights of the demo; nothing is trained. Twenty seconds on two cores.

    python examples/own_chip/place.py       # writes runs/own_chip/
"""

from pathlib import Path

from mksgn.bench import known_models, measure
from mksgn.bench.timing_models import known_timing_models
from mksgn.deploy.placement.chips import chip_named, known_chips
from mksgn.export import export_to_nir
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "demo" / "model.pt"


def main() -> None:
    """Place the demo's network on the chip, run eight clips, and print fit, energy and time."""
    trained = checkpoint.load(WEIGHTS)
    training = open_source("synthetic", part="train", limit=24)
    bodies, _ = body_inputs(training.clips, trained.normaliser)
    run = measure(
        export_to_nir(trained, quantize=8, calibration=bodies),
        open_source("synthetic", part="test", limit=8),
        chip=chip_named("our-chip", known_chips([HERE / "chip.yaml"])),
        energy_models=known_models([HERE / "energy_models.yaml"]),
        timing_models=known_timing_models([HERE / "timing_models.yaml"]),
    )

    placement = run.record.placement
    print(f"{placement.cores} cores on {placement.chips} chips: {placement.fit.text(placement.chip)}")
    for limit in placement.limits:
        print(f"  {limit.name:<24} {limit.value:>10,} of {'unknown' if limit.max is None else f'{limit.max:,}'}")

    energy = run.energy["our-chip-a0-slopes"]
    for event, millijoule in energy.terms.items():
        print(f"  {event:<24} {millijoule:10.6f} mJ")
    print(f"{energy.total_mJ:.6f} mJ per clip; leaves out {', '.join(energy.excludes)}")

    time = next(timing for timing in run.record.timing if timing.model == "our-chip-clock").placements[0]
    print(
        f"step {time.step_us.lower:.1f} to {time.step_us.estimate:.1f} µs, "
        f"latency {time.latency_us.lower / 1e3:.2f} to {time.latency_us.estimate / 1e3:.2f} ms, "
        f"{time.samples_per_second.lower:,.0f} to {time.samples_per_second.estimate:,.0f} clips per second"
    )
    print(run.report("runs/own_chip"))


if __name__ == "__main__":
    main()
