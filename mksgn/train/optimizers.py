"""The optimiser and the learning rate schedule of a config."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mksgn.train.config import TrainConfig

MOMENTUM = 0.9  # of SGD, Nesterov [sibling]
STEP_FACTOR = 0.1  # at each milestone of the schedule `step`
LEAST_SHARE = 1e-3  # of the learning rate, at the end of the cosine


def build(module: nn.Module, config: TrainConfig, steps: int) -> tuple[Optimizer, LambdaLR]:
    """Build the optimiser of a module's trainable parameters, and its schedule over `steps`
    steps."""
    groups = weight_groups(module, config.weight_decay)
    fused = all(p.is_cuda for p in groups[0]["params"])  # one launch for all parameters
    optimizer: Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    return optimizer, LambdaLR(optimizer, share_of_rate(config, steps))


def weight_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Group parameters for weight decay on synapses only; decay of gains, batch norms or biases
    would silence populations."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]


def share_of_rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Map a step to a share of the config's learning rate: linear warm-up, then half a cosine or a
    staircase."""
    warmup = max(1, round(config.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.schedule == "step":
            return STEP_FACTOR ** sum(step >= share * steps for share in config.milestones)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.5 * (1 + math.cos(math.pi * done)) + LEAST_SHARE

    return factor
