"""A few clips of a run, executed, counted and compared. A run is the sum of its shards in any order."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import nir
import numpy as np

from mksgn.bench.samples import Presented, SampleSet
from mksgn.common.counts import MOST_REPEATS
from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted
from mksgn.deploy import compile_graph, spike_bits
from mksgn.deploy import run as run_program
from mksgn.deploy.choices import BACKENDS, PRECISIONS, BackendName, PrecisionName
from mksgn.deploy.decode import Decoding
from mksgn.deploy.emulator import batch_size
from mksgn.deploy.execution import Counters, Execution
from mksgn.deploy.options import Reading
from mksgn.deploy.program.program import Program
from mksgn.deploy.program.text import text
from mksgn.deploy.run_folder import TRAINS
from mksgn.export.errors import ParityError
from mksgn.export.graph import files
from mksgn.export.reference.execute import execute
from mksgn.export.verification import verify
from mksgn.export.verification.parity import compare
from mksgn.train.checkpoint import sha256

NIR_REFERENCE = "NIR reference"
LAVA_SHARD = 64  # clips; starting a network in Lava takes seconds

Spikes = dict[str, np.ndarray]  # by population: (bodies, steps, *shape) bool


@dataclass(frozen=True)
class Settings:
    """How clips are executed: everything that can change a count or a comparison.

    Args:
        backend: The emulator, or Lava.
        precision: Loihi's fixed point, or float32.
        compare: Number of clips, from the first, that are compared spike by spike; None: all.
        repeats: Executions of every clip, for the spread of the times.
        decoding: How the output becomes a prediction.
        compiling: Settings that the file leaves open.
    """

    backend: BackendName = "emulator"
    precision: PrecisionName = "fixed"
    compare: int | None = None
    repeats: int = 1
    decoding: Decoding = field(default_factory=Decoding)
    compiling: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        for name, known in (("backend", BACKENDS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                raise BadInputError(f"{name} {value!r}: choose {' or '.join(known)}")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise BadInputError(f"repeat ({quoted(self.repeats)}) must be 1 to {MOST_REPEATS:,}")


@dataclass(frozen=True, eq=False)
class Network:
    """A compiled network, shared by all shards of a run.

    `model` is its file. For a network in memory, it is the name that its file will have in the run's
    folder, and `content` is that file's content. `graph` is None if only a program was given.
    """

    model: Path
    sha256: str
    graph: nir.NIRGraph | None
    program: Program
    presented: int | None = None  # time steps of a sample, if the data determine them
    compiling: Reading = field(default_factory=Reading)
    content: bytes | None = None

    @classmethod
    def read(cls, model: Path, precision: str, compiling: Reading | None = None) -> Network:
        """Read and compile a file. Raises BadInputError if that is not possible."""
        graph = files.read(model)
        options = compiling or Reading()
        program = compile_graph(graph, precision=precision, **options.options)
        return cls(model, sha256(model), graph, program, compiling=options)

    @classmethod
    def of(cls, graph: nir.NIRGraph, name: str, precision: str, compiling: Reading) -> Network:
        """Compile a graph in memory; `name` is that of the file that it will have."""
        program = compile_graph(graph, precision=precision, **compiling.options)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / name
            files.write(graph, file)
            content = file.read_bytes()
        sha = hashlib.sha256(content).hexdigest()
        return cls(Path(name), sha, graph, program, content=content, compiling=compiling)

    @classmethod
    def of_program(cls, program: Program, name: str) -> Network:
        """Take a compiled program; its file holds its text."""
        content = text(program).encode()
        return cls(Path(name), hashlib.sha256(content).hexdigest(), None, program, content=content)

    def presenting(self, samples: SampleSet) -> Network:
        """Return the network with the time steps of samples that are bound to it."""
        return replace(self, presented=samples.steps(self.program))

    @property
    def quantised(self) -> bool:
        return self.program.quantization is not None

    @property
    def parents(self) -> list[str]:
        """The sha256 of the file that the network was made from, if it names one."""
        parent = None if self.graph is None else self.graph.metadata.get("parent")
        return [parent] if parent else []

    @cached_property
    def student(self) -> verify.FoldedStudent | None:
        """The file's weights in torch; None for a network that is not a student of mksgn."""
        return verify.FoldedStudent(self.graph) if self.graph is not None and self.is_student else None

    def reference(self, inputs: Mapping[str, np.ndarray]) -> Spikes | None:
        """Return the spikes of NIR's reference execution, (samples, steps, *shape); None if only a program was given.

        Args:
            inputs: (samples, steps, *input shape) by input.
        """
        if self.graph is None:
            return None
        if_dt = self.graph.metadata.get("if_dt") if self.compiling.if_dt is None else self.compiling.if_dt
        graph = self.compiling.applied(self.graph)
        run = execute(graph, dict(inputs), self.steps, self.program.dt, stepwise=True, if_dt=if_dt)
        return {name: train.swapaxes(0, 1) for name, train in run.spikes.items()}

    @property
    def is_student(self) -> bool:
        return self.graph is not None and self.graph.metadata.get("student") is not None

    @property
    def steps(self) -> int:
        """Time steps of a clip."""
        steps = self.presented or self.program.steps
        if steps is None:
            raise BadInputError(
                f"{self.model}: the file does not say how many steps a sample has; give arrays, --data npz:FILE"
            )
        return steps

    def shard_size(self, backend: str) -> int:
        """Return the default number of clips of a shard: as many as the emulator or one start of Lava runs at once."""
        return LAVA_SHARD if backend == "lava" else batch_size(self.program, self.steps)


@dataclass(frozen=True)
class Compared:
    """Decisions (one neuron at one step) compared with other executions.

    `first` is (execution, layer, clip, step) of the first difference in the first layer that differs: later
    layers may only inherit it. `rounding` counts the mismatches with an execution that rounds differently.
    """

    against: tuple[str, ...] = ()
    decisions: int = 0
    mismatches: int = 0
    first: tuple[int, int, int, int] | None = None
    rounding: int = 0

    def __add__(self, other: Compared) -> Compared:
        return Compared(
            self.against or other.against,
            self.decisions + other.decisions,
            self.mismatches + other.mismatches,
            min((x for x in (self.first, other.first) if x is not None), default=None),
            self.rounding + other.rounding,
        )


@dataclass(frozen=True, eq=False)
class Packed:
    """Spikes of a clip, one bit each, for storing and sending."""

    bits: np.ndarray
    shape: tuple[int, ...]  # (bodies, steps, *shape of the population)

    @classmethod
    def of(cls, spikes: np.ndarray) -> Packed:
        return cls(spike_bits.pack(spikes.ravel()), spikes.shape)

    @property
    def spikes(self) -> np.ndarray:
        """The spikes as bool."""
        return spike_bits.unpack(self.bits, math.prod(self.shape)).reshape(self.shape)


@dataclass
class Shard:
    """Result of the clips `first`, `first + 1`, …

    `digests` has an entry for each clip, `seconds` one for each repetition; `trains` has the spikes that
    are kept, by clip.
    """

    first: int
    names: list[str]
    digests: list[str]
    predictions: np.ndarray
    bodies: int
    counters: dict[str, Counters]
    seconds: tuple[float, ...]
    compared: Compared
    trains: dict[int, dict[str, Packed]] = field(default_factory=dict)


def shards(missing: np.ndarray, size: int) -> list[range]:
    """Divide the clips that are still to be run into shards.

    Shards are aligned to multiples of `size`, so a resumed run has the shards of an uninterrupted
    one: in float32, sums may be rounded differently in batches of another size.

    Args:
        missing: Whether a clip is still to be run, (clips,) bool.
        size: Largest number of clips in a shard.

    Returns:
        Ranges of consecutive clips, in order.
    """
    ranges = []
    for first in range(0, len(missing), size):
        clips = np.flatnonzero(missing[first : first + size]) + first
        ranges += [
            range(int(run[0]), int(run[-1]) + 1)
            for run in np.split(clips, np.flatnonzero(np.diff(clips) > 1) + 1)
            if len(run)
        ]
    return ranges


def run_shard(network: Network, samples: SampleSet, first: int, settings: Settings) -> Shard:
    """Run the samples of a shard.

    Args:
        network: The compiled network.
        samples: The samples of the shard, in memory.
        first: Index of the first of them in the run.
        settings: How they are executed.

    Raises:
        ParityError: A repetition gives different spikes.
    """
    presented = samples.presented(network.graph, network.program)
    compared = len(samples) if settings.compare is None else max(0, min(len(samples), settings.compare - first))
    kept = max(0, min(len(samples), TRAINS - first))
    execution, seconds = _execute(network.program, presented, settings, record=bool(compared or kept))
    inputs = {name: x != 0 for name, x in presented.arrays.items() if network.program.sends_spikes(name)}
    trains = inputs | execution.spikes if kept else {}
    return Shard(
        first=first,
        names=samples.names(),
        digests=[samples.digest(index) for index in range(len(samples))],
        predictions=presented.predictions(network.program, execution, settings.decoding),
        bodies=presented.rows,
        counters=execution.counters,
        seconds=seconds,
        compared=_compare(network, presented.first(compared), execution, first),
        trains={
            first + sample: {name: Packed.of(x[presented.sample_of_row == sample]) for name, x in trains.items()}
            for sample in range(kept)
        },
    )


def _execute(
    program: Program, presented: Presented, settings: Settings, *, record: bool
) -> tuple[Execution, tuple[float, ...]]:
    execution = run_program(program, presented.arrays, backend=settings.backend, record=record)
    seconds = [execution.seconds]
    for repeat in range(1, settings.repeats):
        repetition = run_program(program, presented.arrays, backend=settings.backend, record=record)
        seconds.append(repetition.seconds)
        for name, counters in execution.counters.items():
            if not np.array_equal(counters.per_neuron, repetition.counters[name].per_neuron):
                raise ParityError(
                    f"{name}: repetition {repeat + 1} on {settings.backend} gives different spikes from the first"
                )
    return execution, tuple(seconds)


def _compare(network: Network, presented: Presented, execution: Execution, first: int) -> Compared:
    """Compare the spikes of the first samples with another execution, and those of Lava with the emulator too.

    A student's are compared with torch, exactly. Any other network's are compared with the reference execution, which
    holds states in float32, whereas the emulator rounds decays and membrane potentials to Loihi's bits.
    """
    if not presented.rows:
        return Compared()
    spikes = {name: train[: presented.rows] for name, train in execution.spikes.items()}
    references: dict[str, Spikes] = {}
    if execution.backend == "lava":
        references["emulator"] = run_program(network.program, presented.arrays, backend="emulator").spikes
    if network.student is not None:
        (inputs,) = presented.arrays.values()
        if inputs.strides[1] == 0:  # a student presents one value at every step
            references["torch"] = verify.torch_spikes(network.student, np.ascontiguousarray(inputs[:, 0]))[0]
    elif (reference := network.reference(presented.arrays)) is not None:
        references[NIR_REFERENCE] = reference
    layers = {population.name: number for number, population in enumerate(network.program.populations)}
    total = Compared(tuple(references))
    for number, (name, expected) in enumerate(references.items()):
        # bias neurons are added by the compiler and are in no file
        common = {key: train for key, train in spikes.items() if key in expected} if name == NIR_REFERENCE else spikes
        parity = compare(name, expected, common)
        difference = None
        if (at := parity.first) is not None:
            sample = first + int(presented.sample_of_row[at.sample])
            difference = (number, layers.get(at.layer, len(layers)), sample, at.step)
        rounding = parity.mismatches if name == NIR_REFERENCE else 0
        total += Compared((), parity.decisions, parity.mismatches, difference, rounding)
    return total
