"""A sweep's grid as data: which networks, how they are changed, on which chips, and the points that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mksgn.bench.schemas import StrictModel, read_yaml
from mksgn.deploy.placement.chips import chip_named

SCHEMA = "mksgn.sweep/1"

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]  # part of a folder's name


class Axes(StrictModel):
    """What is varied; the product of all. An axis that is left out has one value: the network as it was trained."""

    model: dict[Label, str]
    """Label: path of a model.pt, from the grid's folder; one for each width, preset or training."""
    steps: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()
    """Time steps S; empty: the model's own."""
    threshold: tuple[Annotated[float, Field(gt=0, le=100)], ...] = (1.0,)
    """Times every population's trained threshold."""
    bits: tuple[Annotated[int, Field(ge=2, le=8)], ...] = (8,)
    chip: tuple[str, ...] = ("loihi2",)

    @model_validator(mode="after")
    def _consistent(self) -> Axes:
        for axis in ("model", "threshold", "bits", "chip"):
            if not getattr(self, axis):
                raise ValueError(f"axis {axis} is empty")
        for axis in ("steps", "threshold", "bits", "chip"):
            values = getattr(self, axis)
            if len(set(values)) != len(values):
                raise ValueError(f"axis {axis} names a value twice")
        for chip in self.chip:
            chip_named(chip)
        return self


class Grid(StrictModel):
    """A sweep over one part of one data set."""

    schema_id: Literal["mksgn.sweep/1"] = Field(alias="schema")
    data: str
    """SOURCE, as on the command line; a path in it is from where the command runs."""
    split: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    """So many clips at most; without: all of the split's test part."""
    seed: int = 0
    calibration: Annotated[int, Field(ge=1)] = 24
    """Clips of the training part, by which scales are chosen."""
    compare: Annotated[int, Field(ge=0)] = 8
    """Clips on which each network's spikes are compared with torch."""
    shard: Annotated[int, Field(ge=1)] = 32
    """Clips of one task. A record does not depend on who ran its shards."""
    axes: Axes
    energy_models: Annotated[tuple[str, ...], Field(min_length=1)] = ("horowitz45-fp32",)
    """A Pareto front for each."""

    def variants(self) -> Iterator[Variant]:
        """What has to be run: chips and prices change no spike."""
        for model, steps, threshold, bits in product(
            self.axes.model, self.axes.steps or (None,), self.axes.threshold, self.axes.bits
        ):
            yield Variant(model=model, path=self.axes.model[model], steps=steps, threshold=threshold, bits=bits)

    def points(self) -> Iterator[Point]:
        """One record each."""
        for variant, chip in product(self.variants(), self.axes.chip):
            yield Point(variant=variant, chip=chip)


class Variant(StrictModel):
    """A network of the sweep."""

    model: str
    path: str
    steps: int | None
    threshold: float
    bits: int

    @property
    def label(self) -> str:
        steps = "" if self.steps is None else f"-S{self.steps}"
        threshold = f"{self.threshold:g}" if float(f"{self.threshold:g}") == self.threshold else repr(self.threshold)
        return f"{self.model}{steps}-th{threshold}-b{self.bits}"


class Point(StrictModel):
    variant: Variant
    chip: str

    @property
    def label(self) -> str:
        return f"{self.variant.label}-{self.chip}"


def read(path: Path) -> Grid:
    """Raises BadInputError in one line: file, place, fault. Models are found from the grid's own folder."""
    grid = read_yaml(path, Grid)
    models = {label: str((path.parent / model).resolve()) for label, model in grid.axes.model.items()}
    return grid.model_copy(update={"axes": grid.axes.model_copy(update={"model": models})})


def size(grid: Grid) -> int:
    """Points."""
    axes = grid.axes
    return math.prod(map(len, (axes.model, axes.steps or (None,), axes.threshold, axes.bits, axes.chip)))
