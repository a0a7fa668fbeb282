"""Messages between leaves: (slots, values) of one or several populations, channels last within a population."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.program.program import Population

DTYPES: dict[str, Any] = {"fixed": np.uint8, "float": np.float32}  # a float program may also send currents


@dataclass(frozen=True)
class Layout:
    """The place of each population in a message."""

    populations: tuple[Population, ...]
    slots: int
    precision: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.slots, sum(p.size for p in self.populations)

    @cached_property
    def _slices(self) -> dict[str, tuple[Population, slice]]:
        slices, first = {}, 0
        for population in self.populations:
            slices[population.name] = population, slice(first, first + population.size)
            first += population.size
        return slices

    def silence(self) -> np.ndarray:
        return np.zeros(self.shape, dtype=DTYPES[self.precision])

    def pack(self, message: np.ndarray, name: str, values: Tensor) -> None:
        """Write what a population sent, (active slots, *shape), into a message; other slots stay as they are."""
        _, part = self._slices[name]
        message[: len(values), part] = channels_last(values).reshape(len(values), -1).numpy()

    def unpack(self, message: np.ndarray, name: str, active: int) -> Tensor:
        """Read what a population sent, (active slots, *shape), as a view."""
        population, part = self._slices[name]
        values = torch.from_numpy(message[:active, part])
        return channels_first(values, population.shape)


def channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H, W, C); other populations as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def channels_first(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(N, size) in the order of `channels_last` → (N, *shape), a view."""
    if len(shape) == 3:
        return x.unflatten(1, (*shape[1:], shape[0])).permute(0, 3, 1, 2)
    return x.unflatten(1, shape)
