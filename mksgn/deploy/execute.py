"""Run a compiled program: check its inputs, then pass them to the emulator or to Lava."""

import warnings
from collections.abc import Callable

import numpy as np

from mksgn.common.errors import MksgnWarning
from mksgn.deploy import emulator
from mksgn.deploy.choices import BACKENDS
from mksgn.deploy.errors import DeployError, LavaMissingError
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program
from mksgn.deploy.torch_settings import threads
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.train.parallel import check_device


def run(
    program: Program,
    inputs: Arrays,
    *,
    backend: str = "emulator",
    record: bool = True,
    progress: Callable[[int], None] = lambda samples: None,
    device: str = "cpu",
) -> Execution:
    """Run samples through a program; each starts at rest. Several threads may call this; in Lava they take turns.

    Args:
        program: a compiled program.
        inputs: (samples, steps, *input shape), or a dict of such arrays by input's name.
        backend: "emulator" or "lava".
        record: keep spike trains, not only counters and outputs.
        progress: called with the number of samples just finished.
        device: device of the emulator, "cpu" or "cuda".

    Raises:
        DeployError: inputs do not fit the program, or the backend is not available.
        BadInputError: the device is not available.
    """
    threads.settle_after_fork()
    named = arrays_by_input(inputs, [p.name for p in program.inputs], error=DeployError)
    _check_inputs(program, named)
    if backend == "emulator":
        check_device(device)
        execution = emulator.execute(program, named, record=record, progress=progress, device=device)
    elif backend == "lava":
        try:
            from mksgn.deploy.lava import network
        except ImportError as error:
            raise LavaMissingError(error) from error
        execution = network.execute(program, named, record=record, progress=progress)
    else:
        raise DeployError(f"backend {backend!r}: choose {' or '.join(BACKENDS)}")
    execution.constant = all(x.strides[1] == 0 for x in named.values())
    return execution


def present(program: Program, name: str, x: np.ndarray, steps: int | None = None) -> np.ndarray:
    """Return samples of an input with a time axis: those without one are presented at every step.

    The result is then a view that repeats one value: nothing is stored or computed for every step.

    Args:
        program: a compiled program.
        name: name of the input.
        x: (samples, steps, *input shape) or (samples, *input shape).
        steps: time steps of samples without a time axis; None: what the file says.

    Raises:
        DeployError: nothing says how many steps.
    """
    if x.ndim != len(program[name].shape) + 1:
        return x
    steps = steps or program.steps
    if steps is None:
        raise DeployError(
            f"input {name}: samples have no time axis, and the file does not say how many steps to present them; "
            "give --steps (steps=…)"
        )
    return np.broadcast_to(x[:, None], (len(x), steps, *x.shape[1:]))


def _check_inputs(program: Program, inputs: dict[str, np.ndarray]) -> None:
    lengths = {x.shape[:2] for x in inputs.values()}
    for name, x in inputs.items():
        if x.shape[2:] != program[name].shape or x.ndim < 2 or 0 in x.shape:
            raise DeployError(
                f"input {name}: shape {x.shape}, expected (samples, steps, {', '.join(map(str, program[name].shape))})"
            )
        if not np.isfinite(x).all():
            sample, step = (int(i) for i in np.argwhere(~np.isfinite(x))[0][:2])
            raise DeployError(
                f"input {name}: sample {sample}, step {step} holds a value that is not finite; repair or leave out "
                "the sample"
            )
        if name not in program.analog and not np.isin(x, (0, 1)).all():
            raise DeployError(
                f"input {name}: spikes are 0 or 1, and other values were given; name it in `analog` (--analog {name}) "
                "if it is a current"
            )
        if name in program.analog and _like_spikes(x):
            warnings.warn(
                f"input {name}: all values are 0 or 1 and differ from step to step, as spikes do; as currents they "
                "cause multiply-accumulates on the host instead of synaptic operations. If they are spikes, leave out "
                f"--analog {name}",
                MksgnWarning,
                stacklevel=3,
            )
    if len(lengths) != 1:
        raise DeployError(f"inputs differ in samples or steps: {sorted(lengths)}")


def _like_spikes(x: np.ndarray) -> bool:
    repeated = x.shape[1] == 1 or x.strides[1] == 0  # one value at every step, as `present` returns it
    return not repeated and bool(x.any()) and bool(np.isin(x, (0, 1)).all())
