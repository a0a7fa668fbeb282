"""The messages that the host sends into a network: one population's values, slot by slot, step by step."""

import numpy as np
import torch

from mksgn.deploy.lava.messages import Layout


class Frames:
    """Values (samples, steps, *shape) of the layout's one population; sample = round · slots + slot."""

    def __init__(self, layout: Layout, values: np.ndarray):
        self.layout, self.values = layout, values
        self.rounds = -(-len(values) // layout.slots)

    def frame(self, step: int) -> np.ndarray:
        """Return the message of a step, counted from 0; silence before, after and in slots without a sample."""
        message = self.layout.silence()
        round_index, at = divmod(step, self.values.shape[1])
        if 0 <= round_index < self.rounds:
            first = round_index * self.layout.slots
            values = torch.from_numpy(self.values[first : first + self.layout.slots, at].astype(message.dtype))
            self.layout.pack(message, self.layout.populations[0].name, values)
        return message
