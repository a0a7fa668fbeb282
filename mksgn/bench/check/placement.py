"""Check the placement that run.json states: its cores against the layers, its limits against the chip's."""

from collections.abc import Sequence

from mksgn.bench.check.findings import CheckResult
from mksgn.bench.record import Placement, Record
from mksgn.bench.run_files import RUN_FILE
from mksgn.deploy.placement.chips import CHIPS, CORES_REACHED, RESOURCES, Chip


def check_placement(result: CheckResult, record: Record, chips: Sequence[Chip] | None = None) -> None:
    """Check cores, chips and limits; only a new placement could check what the network needs of a core.

    Args:
        result: Receives the findings.
        record: The run.
        chips: Chips by which the limits are checked; None: the known ones.
    """
    placement = record.placement
    if placement is None:
        return
    cores = sum(layer.cores or 0 for layer in record.layers)
    if placement.cores != cores:
        result.fault(RUN_FILE, f"placement.cores is {placement.cores:,}, the layers have {cores:,}")
    by_name = {chip.name: chip for chip in (CHIPS.values() if chips is None else chips)}
    chip = by_name.get(placement.chip)
    if chip is None:
        result.skip(RUN_FILE, f"limits of {placement.chip}: no such chip here; name its file (--chip-file)")
    else:
        _check_limits(result, placement, chip)
        result.checked.append(f"{RUN_FILE}: {len(placement.limits)} limits of {chip.name}")
    fit = placement.fit
    if fit.state != "fits":
        result.remark(RUN_FILE, fit.text(placement.chip))


def _check_limits(result: CheckResult, placement: Placement, chip: Chip) -> None:
    chips = -(-placement.cores // chip.cores)
    if placement.chips != chips:
        result.fault(
            RUN_FILE, f"placement.chips is {placement.chips:,}, {placement.cores:,} cores are {chips:,} of {chip.name}"
        )
    of_cores = [f"{resource} per core" for resource in RESOURCES]
    known = dict(zip(of_cores, chip.core_limits, strict=True)) | {CORES_REACHED: chip.cores_per_neuron}
    for limit in placement.limits:
        expected = known.get(limit.name)
        if limit.max != expected:
            result.fault(RUN_FILE, f"placement: {limit.name}: limit {limit.max}, {chip.name} has {expected}")
    if missing := [name for name in of_cores if name not in {limit.name for limit in placement.limits}]:
        result.fault(RUN_FILE, f"placement: {', '.join(missing)}: not listed, so {placement.chip} would seem to fit")
