"""What the host sends into a network: the values of one population, lane by lane, step by step."""

from __future__ import annotations

import numpy as np
import torch

from mksgn.deploy.lava.messages import Layout


class Frames:
    """`values` (clips, steps, *shape) of the layout's one population; clip = round · lanes + lane."""

    def __init__(self, layout: Layout, values: np.ndarray, lanes: int):
        self.layout, self.values, self.lanes = layout, values, lanes
        self.rounds = -(-len(values) // lanes)

    def frame(self, step: int) -> np.ndarray:
        """The message of a step, from 0; silence before and after, and in lanes without a clip."""
        message = self.layout.silence()
        round_of_clips, at = divmod(step, self.values.shape[1])
        if 0 <= round_of_clips < self.rounds:
            first = round_of_clips * self.lanes
            values = torch.from_numpy(self.values[first : first + self.lanes, at].astype(message.dtype))
            self.layout.pack(message, self.layout.populations[0].name, values)
        return message
