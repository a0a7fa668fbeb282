"""Processes that train one network, started by torchrun, each on its share of every batch; gloo on
CPUs, NCCL on GPUs.

Two processes of one thread use a 2-core CPU better than one process of two threads: a spiking
network is thousands of small operations, and threads that synchronise after each mostly wait
(docs/measurements.md).

Batch norms and SMF see their process's share of a batch; their running statistics are averaged
after each epoch. The result is that of one process within noise, not bit for bit.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted


def _from_torchrun(name: str, default: int) -> int:
    """Return a number that torchrun sets. Raises BadInputError where something else has set it."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadInputError(f"environment: {name} is {quoted(text)}, torchrun sets a number; unset it")
    return int(text)


def check_device(device: str, precision: str = "float32") -> None:
    """Raise BadInputError for a device, or a precision on it, that this process does not have."""
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    named = number.isascii() and number.isdigit() and len(number) < 10
    if kind != "cuda" or (number and not named) or not torch.cuda.is_available():
        raise BadInputError(f"--device {device}: not available here; use cpu")
    index = int(number) if named else _from_torchrun("LOCAL_RANK", 0)
    if index >= torch.cuda.device_count():
        raise BadInputError(f"--device {device}: GPU {index} of {torch.cuda.device_count()}; start fewer processes")
    if number and _from_torchrun("WORLD_SIZE", 1) > 1:
        raise BadInputError(
            f"--device {device}: one GPU for several processes; use --device cuda, which gives each its own"
        )
    if precision == "mixed" and torch.cuda.get_device_capability(index) < (8, 0):
        raise BadInputError(f"precision mixed needs bfloat16, which {device} does not have; use precision=float32")


def leads() -> bool:
    """Tell whether this is the first of torchrun's processes, or the only one: it writes the files and reports."""
    return _from_torchrun("RANK", 0) == 0


class Group:
    """The processes of a training; a single one, as is common, communicates nothing. `device` is this
    process's own."""

    def __init__(self, device: str = "cpu"):
        self.size, self.rank = _from_torchrun("WORLD_SIZE", 1), _from_torchrun("RANK", 0)
        if device == "cuda" and self.size > 1:  # a GPU for each process
            device = f"cuda:{_from_torchrun('LOCAL_RANK', self.rank)}"
            torch.cuda.set_device(device)
        self.device = device
        if self.size > 1 and not dist.is_initialized():
            if os.environ.get("MASTER_ADDR") in ("localhost", "127.0.0.1"):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would look up the host's name
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """Return this process's part of a batch."""
        return index[self.rank :: self.size]

    def take_from_leader(self, module: nn.Module) -> None:
        """Copy the first process's parameters and buffers to all."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their sum over the processes, in one message."""
        if self.size > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            flat = torch.cat([g.flatten() for g in gradients])
            dist.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def average_buffers(self, module: nn.Module) -> None:
        """Average running statistics over the processes."""
        if self.size > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.size

    def sums(self, *values: float) -> list[float]:
        """Sum each value over the processes."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)  # NCCL sums on GPUs only
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
