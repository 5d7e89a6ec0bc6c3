"""AdamW over the trained set, with float32 master weights whatever format the model computes in."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from ..agents.policy import TrainedSet, decoder_layers
from ..envs.errors import UserError
from .config import TrainerConfig


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) on float32 masters; a model in bfloat16 receives rounded copies after each step."""

    def __init__(self, trained: TrainedSet, model: PreTrainedModel, config: TrainerConfig):
        self.config, self.parameters, self.steps = config, trained.parameters, 0
        self.masters = {
            name: parameter if parameter.dtype == torch.float32 else parameter.detach().float().requires_grad_()
            for name, parameter in trained.parameters.items()
        }
        lr_of = learning_rates(trained, model, config)
        for name, parameter in self.parameters.items():
            if parameter is not self.masters[name]:
                parameter.register_post_accumulate_grad_hook(partial(_hand_over, self.masters[name]))
        groups = [{"params": [self.masters[name] for name in names], "lr": lr, "peak": lr} for lr, names in lr_of.items()]
        self.adamw = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def step(self) -> float:
        """Clip, warm up, update; returns the gradient norm before clipping. A gradient that is not finite changes nothing."""
        for parameter in self.masters.values():
            if parameter.grad is None:
                # Zeros rather than None: a step without any signal still decays the moments, as it does when no row is skipped.
                parameter.grad = torch.zeros_like(parameter)
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.config.max_grad_norm))
        if math.isfinite(norm):
            self.steps += 1
            warm = min(1.0, self.steps / max(1, self.config.warmup_steps))
            for group in self.adamw.param_groups:
                group["lr"] = group["peak"] * warm
            self.adamw.step()
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    if parameter is not self.masters[name]:
                        parameter.copy_(self.masters[name])
        self.adamw.zero_grad()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "adamw": self.adamw.state_dict(),
            "masters": {name: master.detach() for name, master in self.masters.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.adamw.load_state_dict(state["adamw"])
        for name, master in self.masters.items():
            master.copy_(state["masters"][name])
            self.parameters[name].copy_(master)


def _hand_over(master: torch.Tensor, parameter: torch.Tensor) -> None:
    """Add a gradient to the master's as soon as it is there: sums over passes are in float32, and none is held twice."""
    assert parameter.grad is not None
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad += parameter.grad
    parameter.grad = None


def learning_rates(trained: TrainedSet, model: PreTrainedModel, config: TrainerConfig) -> dict[float, list[str]]:
    """Names of the trained parameters by learning rate. Raises UserError where `lr_by_layer` names an untrained layer."""
    names_of = {id(parameter): name for name, parameter in trained.parameters.items()}
    lr_of = dict.fromkeys(trained.parameters, config.lr)
    layers = decoder_layers(model)
    for index, lr in config.lr_by_layer.items():
        inside = [names_of[id(p)] for p in layers[index].parameters() if id(p) in names_of] if 0 <= index < len(layers) else []
        if not inside:
            raise UserError(f"trainer.lr_by_layer: layer {index} is not part of the trained set {trained.spec}")
        lr_of |= dict.fromkeys(inside, lr)
    by_lr: dict[float, list[str]] = {}
    for name, lr in lr_of.items():
        by_lr.setdefault(lr, []).append(name)
    return by_lr
