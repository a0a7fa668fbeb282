"""Write the tables of docs/lava-and-the-chip.md: python -m scripts.lava_and_the_chip docs/lava-and-the-chip.md

The three networks of one neuron under each reading of how the chip works, in plain integers, and the demo's student
under two readings that change its spikes. Nothing here was measured on a chip.
"""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common.writing import write_text
from mksgn.deploy import compile_graph, run
from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron
from mksgn.deploy.program.program import Population, Program
from mksgn.export import export_to_nir
from mksgn.export.loihi import DECAY_STEPS, HALF_STEP, MEMBRANE_MAX, SUB_UNIT_BITS
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs

DEMO = Path(__file__).parents[1] / "examples" / "demo" / "model.pt"
CLIPS, CALIBRATION = 20, 50
SHOWN = (0, 1, 2, 39)  # steps


@dataclass(frozen=True)
class Network:
    """One neuron that rests at 0. `weights` (inputs,), even; `spikes` (steps, inputs); decays and threshold as registers."""

    weights: np.ndarray
    spikes: np.ndarray
    du: int
    dv: int
    vth: int

    @property
    def currents(self) -> np.ndarray:
        """Currents (steps,), in weight units."""
        return self.spikes.astype(np.int64) @ self.weights


@dataclass(frozen=True)
class Reading:
    """How a chip may differ from Lava's model; the defaults are Lava's.

    Attributes:
        added: what is added to du in the decay of the current.
        at_threshold: whether a membrane that equals its threshold fires.
        shift: bits by which the threshold is shifted.
        lowest: the membrane's floor, in sub-units; None: it has none.
        wraps: whether a membrane beyond 24 bits wraps around.
    """

    added: int = 1
    at_threshold: bool = False
    shift: int = SUB_UNIT_BITS
    lowest: int | None = -MEMBRANE_MAX
    wraps: bool = False


def trace(network: Network, reading: Reading) -> tuple[list[int], list[int], list[int]]:
    """Return u, v after the reset, and the spikes of every step; u and v in sub-units."""
    u = v = 0
    found = []
    for a in network.currents.tolist():
        u = _kept(u, network.du + reading.added) + (a << SUB_UNIT_BITS)
        v = _kept(v, network.dv) + u
        if reading.wraps:
            v = (v + MEMBRANE_MAX + 1) % (2 * (MEMBRANE_MAX + 1)) - MEMBRANE_MAX - 1
        elif reading.lowest is not None:
            v = min(max(v, reading.lowest), MEMBRANE_MAX)
        fired = v + reading.at_threshold > network.vth << reading.shift
        v = 0 if fired else v
        found.append((u, v, int(fired)))
    us, vs, spikes = zip(*found, strict=True)
    return list(us), list(vs), list(spikes)


def _kept(x: int, decay: int) -> int:
    """Return x (4096 - decay) / 4096, truncated toward zero."""
    size = abs(x) * (DECAY_STEPS - decay) >> 12
    return size if x > 0 else -size


def _once(steps: int) -> np.ndarray:
    return np.arange(steps)[:, None] == 0


CURRENT = Network(np.array([64]), _once(100), du=0, dv=0, vth=2047)
THRESHOLD = Network(np.array([2]), np.ones((40, 1), bool), du=DECAY_STEPS - 1, dv=0, vth=20)
FLOOR = Network(
    np.repeat([-254, 254], 32),
    np.repeat(np.arange(2), [40, 60])[:, None] == np.repeat(np.arange(2), 32),
    du=DECAY_STEPS - 1,
    dv=0,
    vth=1000,
)
LAVA = Reading()
READINGS: dict[str, tuple[Network, dict[str, Reading]]] = {
    "A": (
        CURRENT,
        {
            "Lava; nengo-loihi's emulator; brian2-loihi with decay_I = du + 1": LAVA,
            "no + 1: brian2-loihi with decay_I = du": Reading(added=0),
        },
    ),
    "B": (
        THRESHOLD,
        {
            "v > 64 vth: Lava, nengo-loihi's emulator, brian2-loihi": LAVA,
            "v >= 64 vth": Reading(at_threshold=True),
            "v > 128 vth": Reading(shift=SUB_UNIT_BITS + 1),
            "v > 32 vth": Reading(shift=SUB_UNIT_BITS - 1),
        },
    ),
    "C": (
        FLOOR,
        {
            "clipped at -(2^23 - 1): Lava": LAVA,
            "without a floor: brian2-loihi": Reading(lowest=None),
            "wrapped at 24 bits": Reading(wraps=True),
            "floor at 0: nengo-loihi's default": Reading(lowest=0),
        },
    ),
}


def network_rows() -> Iterator[tuple[str, ...]]:
    """Make the lines of the three networks."""
    states = (f"{name} in steps {', '.join(map(str, SHOWN))}" for name in "uv")
    yield "network", "reading", *states, "steps with a spike", "spikes"
    for name, (network, readings) in READINGS.items():
        for reading, values in readings.items():
            u, v, spikes = trace(network, values)
            steps = np.flatnonzero(spikes).tolist()
            shown = [*steps[:4], "…"] if len(steps) > 4 else steps
            cells = [u[t] for t in SHOWN], [v[t] for t in SHOWN], shown
            yield name, reading, *(", ".join(map(str, cell)) for cell in cells), str(len(steps))


def student_rows() -> Iterator[tuple[str, ...]]:
    """Make the lines of the demo's student, quantised to 8 bits, on the first test clips of the synthetic data."""
    model = checkpoint.load(DEMO)
    parts = (("train", CALIBRATION), ("test", CLIPS))
    calibration, inputs = (
        body_inputs(open_source("synthetic", part=part, limit=limit).clips, model.normaliser)[0]
        for part, limit in parts
    )
    graph = export_to_nir(model, quantize=8, calibration=calibration)
    fixed, floats = (compile_graph(graph, precision=precision) for precision in ("fixed", "float"))
    x = np.repeat(inputs[:, None], model.student.config.steps, 1)
    lava = run(fixed, x)
    programs = {
        "Lava": fixed,
        "no + 1": _changed(fixed, lambda population: _without_the_one(population.neuron)),
        "v >= 64 vth": _changed(floats, lambda population: _fires_at(population.neuron, fixed[population.name].neuron)),
    }
    in_float = run(floats, x).spikes
    assert all((in_float[name] == spikes).all() for name, spikes in lava.spikes.items())
    yield "reading", "decisions that differ", "bodies with another class", "spikes", "synaptic operations"
    decisions = sum(spikes.size for spikes in lava.spikes.values())
    for reading, program in programs.items():
        found = run(program, x)
        differ = sum(int((found.spikes[name] != spikes).sum()) for name, spikes in lava.spikes.items())
        classes = [execution.outputs["output"].sum(1).argmax(1) for execution in (found, lava)]
        spikes, syn_ops = (
            [sum(getattr(c, counter) for c in execution.counters.values()) for execution in (found, lava)]
            for counter in ("spikes", "syn_ops")
        )
        yield (
            reading, f"{differ:,} of {decisions:,}", f"{(classes[0] != classes[1]).sum()} of {len(x)}",
            *(f"{ours:,} ({ours / theirs - 1:+.2%})" for ours, theirs in (spikes, syn_ops)),
        )  # fmt: skip


def _changed(program: Program, neuron: Any) -> Program:
    def of(population: Population) -> Population:
        return dataclasses.replace(population, neuron=neuron(population)) if population.fires else population

    return dataclasses.replace(program, populations=tuple(of(population) for population in program.populations))


def _without_the_one(neuron: Any) -> Any:
    """Leave out the 1 that is added to du: a register of 4095 then keeps 1/4096 of the current. Host neurons stay."""
    return dataclasses.replace(neuron, du=DECAY_STEPS - 2) if isinstance(neuron, FixedNeuron) else neuron


def _fires_at(neuron: FloatNeuron, chip: Any) -> FloatNeuron:
    """A float threshold lies half a sub-unit above the chip's; half a sub-unit below it, v = 64 vth fires too."""
    if not isinstance(chip, FixedNeuron):
        return neuron
    assert chip.vth is not None
    return dataclasses.replace(neuron, threshold=neuron.threshold * (chip.vth - HALF_STEP) / (chip.vth + HALF_STEP))


def table(rows: Iterator[tuple[str, ...]]) -> str:
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * (head.count(" | ") + 1), *lines]) + "\n"


def updated(page: str, name: str, text: str) -> str:
    """Replace what is between a page's two comments of this name."""
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = page.split(opening)
    return before + opening + text + closing + rest.split(closing)[1]


def main(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    page = updated(page, "networks", table(network_rows()))
    write_text(path, updated(page, "student", table(student_rows())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
