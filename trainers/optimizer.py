"""AdamW over the trained set, with float32 master weights whatever format the model computes in."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from ..agents.decoder import decoder_layers
from ..agents.trained_sets import TrainedSet
from ..common.errors import UserError
from .config import TrainerConfig
from .ranks import ONE_PROCESS, Ranks


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) on float32 masters of what is trained; the model receives rounded copies after each step.

    A parameter in float32 that is trained whole is its own master.
    """

    def __init__(self, trained: TrainedSet, model: PreTrainedModel, config: TrainerConfig, ranks: Ranks = ONE_PROCESS):
        self.config, self.trained, self.ranks, self.steps = config, trained, ranks, 0
        self.masters = {name: self._master(name, parameter) for name, parameter in trained.parameters.items()}
        self._apart = {name: master for name, master in self.masters.items() if master is not trained.parameters[name]}
        self._gradients: dict[str, torch.Tensor] = {}
        self._hooks = [trained.parameters[name].register_post_accumulate_grad_hook(partial(self._hand_over, name)) for name in self._apart]
        lr_of = learning_rates(trained, model, config)
        self._order = [name for names in lr_of.values() for name in names]  # as AdamW numbers them
        groups = [{"params": [self.masters[name] for name in names], "lr": lr, "peak": lr} for lr, names in lr_of.items()]
        self.adamw = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)

    def step(self) -> float:
        """Add up the gradients of all ranks, clip, warm up, update; returns the gradient norm before clipping. A gradient that is not
        finite changes nothing."""
        self._add_up()
        norm = self._clip()
        if math.isfinite(norm):
            self.steps += 1
            warm = min(1.0, self.steps / max(1, self.config.warmup_steps))
            for group in self.adamw.param_groups:
                group["lr"] = group["peak"] * warm
            self.adamw.step()
            self._write()
        self.adamw.zero_grad()
        return norm

    def _master(self, name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        """What AdamW moves in the place of a parameter."""
        if parameter.dtype == torch.float32 and name not in self.trained.places:
            return parameter
        return self.trained.read(name, parameter.detach()).float().requires_grad_()

    def _hand_over(self, name: str, parameter: torch.Tensor) -> None:
        """Add a gradient to the master's as soon as it is there: sums over passes are in float32, and none is held twice."""
        assert parameter.grad is not None
        gradient = self.trained.read(name, parameter.grad)
        if name in self._gradients:
            self._gradients[name] += gradient
        else:
            self._gradients[name] = gradient.float()
        parameter.grad = None

    def _gradient(self, name: str) -> torch.Tensor:
        """This rank's gradient of what is trained of a parameter, in float32, which is then held here no longer.

        Zeros rather than None: a step without any signal still decays the moments, as it does when no row is skipped.
        """
        parameter = self.trained.parameters[name]
        found = self._gradients.pop(name, None) if name in self._apart else parameter.grad
        return torch.zeros_like(self.trained.read(name, parameter), dtype=torch.float32) if found is None else found

    def _add_up(self) -> None:
        """Give each master the sum of the gradients of all ranks."""
        gradients = [self._gradient(name) for name in self.masters]
        self.ranks.add_up(gradients)
        for master, gradient in zip(self.masters.values(), gradients, strict=True):
            master.grad = gradient

    def _clip(self) -> float:
        """The gradient's norm, which is then `max_grad_norm` at most."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.config.max_grad_norm))

    def _write(self) -> None:
        for name, master in self._apart.items():
            self.trained.write(name, master.detach())

    def values(self) -> dict[str, torch.Tensor]:
        """The masters' values, by name; at ranks other than 0 perhaps without their storage."""
        return {name: master.detach() for name, master in self.masters.items()}

    def close(self) -> None:
        """Leave the model's parameters to others."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What another process, with any number of ranks, goes on from; at ranks other than 0 perhaps without the tensors' storage."""
        return {
            "steps": self.steps,
            "adamw": self.adamw.state_dict(),
            "masters": self.values(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.adamw.load_state_dict(state["adamw"])
        for name, master in self.masters.items():
            master.copy_(state["masters"][name])
        self._write()


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
