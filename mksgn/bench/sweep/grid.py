"""A sweep's grid as data: networks, their variants, chips, and the resulting points. Schema `mksgn.sweep/1`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from mksgn.bench.shards import Settings
from mksgn.common.counts import MOST_SAMPLES, MOST_SEED
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import StrictModel, read_yaml
from mksgn.deploy.decode import Decoding
from mksgn.deploy.errors import DeployError
from mksgn.deploy.options import Reading
from mksgn.deploy.placement.chips import Chip, chip_named
from mksgn.train.choices import BITS

SCHEMA = "mksgn.sweep/1"
MOST_POINTS = 10_000  # each is a run with a folder, and a row of the one table and picture

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]  # part of a folder's name


class Axes(StrictModel):
    """The axes of the grid; the points are their product. An axis left out keeps the trained network's value."""

    model: dict[Label, str]
    """Path of a model.pt, or of any NIR file, by label, relative to the grid's folder."""
    steps: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()
    """Time steps S; empty for the model's own."""
    threshold: tuple[Annotated[float, Field(gt=0, le=100)], ...] = (1.0,)
    """Factor of every population's trained threshold."""
    bits: tuple[Annotated[int, Field(ge=BITS[0], le=BITS[-1])], ...] = (8,)
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
        if self.points > MOST_POINTS:
            raise ValueError(
                f"{self.points:,} points, the limit is {MOST_POINTS:,}; shorten an axis, or make several grids"
            )
        return self

    @property
    def points(self) -> int:
        """How many points they have."""
        return prod(len(axis) for axis in (self.model, self.steps or (None,), self.threshold, self.bits, self.chip))


class Grid(StrictModel):
    """A sweep over one part of one data set."""

    schema_id: Literal["mksgn.sweep/1"] = Field(alias="schema")
    data: str
    """SOURCE as on the command line; its path is relative to the working directory."""
    split: str | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] | None = None
    """Largest number of clips; None for all of the split's test part."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    calibration: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 24
    """Clips of the training part that choose the scales of quantisation."""
    compare: Annotated[int, Field(ge=0, le=MOST_SAMPLES)] = 8
    """Clips on which each network's spikes are compared with torch."""
    shard: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 32
    """Clips of one task."""
    axes: Axes
    dt: float = 1e-4
    """What a NIR file of another network leaves open: its time step,"""
    if_dt: float | None = None
    """that of its IF and I,"""
    reset: str = "zero"
    """its reset,"""
    v_init: str = "zero"
    """its initial state,"""
    integration: str = "euler"
    """how its neurons are integrated,"""
    spike_delay: int = 0
    """when their spikes leave them,"""
    analog: tuple[str, ...] = ()
    """its non-spiking inputs,"""
    decode: str = "sum"
    """and how its output becomes a prediction."""
    energy_models: Annotated[tuple[str, ...], Field(min_length=1)] = ("horowitz45-fp32",)
    """Energy models with a Pareto front each."""

    def request(self) -> dict[str, Any]:
        """Return the grid as JSON, without paths of models, energy models, and defaults of what a file leaves open."""
        left_open = {"decode", *(field.name for field in fields(Reading))}
        given = {name for name in left_open if getattr(self, name) != type(self).model_fields[name].default}
        exclude: Any = {"axes": {"model"}, "energy_models": True, **dict.fromkeys(left_open - given, True)}
        return self.model_dump(mode="json", by_alias=True, exclude=exclude)

    @property
    def settings(self) -> Settings:
        """How the points are executed."""
        compiling = Reading(**{field.name: getattr(self, field.name) for field in fields(Reading)})
        return Settings(compare=self.compare, decoding=Decoding.of(self.decode), compiling=compiling)

    def variants(self) -> Iterator[Variant]:
        """Yield the networks to run. Chips and energy models do not change spikes."""
        for model, steps, threshold, bits in product(
            self.axes.model, self.axes.steps or (None,), self.axes.threshold, self.axes.bits
        ):
            yield Variant(model=model, path=self.axes.model[model], steps=steps, threshold=threshold, bits=bits)

    def points(self) -> Iterator[Point]:
        """Yield the points, with one record each."""
        for variant, chip in product(self.variants(), self.axes.chip):
            yield Point(variant=variant, chip=chip)


class Variant(StrictModel):
    """A network of the sweep: a trained model with another number of steps, thresholds and weight bits."""

    model: str
    path: str
    steps: int | None
    threshold: float
    bits: int

    @property
    def label(self) -> str:
        """Name in paths and tables."""
        steps = "" if self.steps is None else f"-S{self.steps}"
        threshold = f"{self.threshold:g}" if float(f"{self.threshold:g}") == self.threshold else repr(self.threshold)
        return f"{self.model}{steps}-th{threshold}-b{self.bits}"


class Point(StrictModel):
    """A variant placed on a chip."""

    variant: Variant
    chip: str

    @property
    def label(self) -> str:
        """Name of the point's folder."""
        return f"{self.variant.label}-{self.chip}"


def read(path: Path, chips: Sequence[Chip] | None = None) -> Grid:
    """Read a grid; paths of models are relative to its folder.

    Args:
        path: The file.
        chips: The chips that it may name; None: the known ones.

    Raises:
        BadInputError: One line that names the file, the field and the fault.
    """
    grid = read_yaml(path, Grid)
    for chip in grid.axes.chip:
        try:
            chip_named(chip, chips)
        except DeployError as error:
            raise BadInputError(f"{path}: axes.chip: {error}") from error
    models = {label: str((path.parent / model).resolve()) for label, model in grid.axes.model.items()}
    return grid.model_copy(update={"axes": grid.axes.model_copy(update={"model": models})})
