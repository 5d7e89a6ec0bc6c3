"""AdamW whose state is dealt over the ranks (`trainer.shard`): stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054).

Each rank keeps its part of every float32 master and of its two moments, through PyTorch's DTensor, and moves that part alone. The model
itself is whole at every rank, as the rollout needs it, and so is the gradient until it is added up. The names, hashes and values that
others see are those of whole parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from transformers import PreTrainedModel

from ..agents.trained_sets import TrainedSet
from .config import TrainerConfig
from .optimizer import MasterAdamW
from .process_group import ProcessGroup
from .ranks import Ranks


def optimizer_of(trained: TrainedSet, model: PreTrainedModel, config: TrainerConfig, ranks: Ranks) -> MasterAdamW:
    """The optimiser that the recipe asks for."""
    if config.shard and isinstance(ranks, ProcessGroup):
        return ShardedAdamW(trained, model, config, ranks)
    return MasterAdamW(trained, model, config, ranks)


class ShardedAdamW(MasterAdamW):
    """Masters are flattened, and split into one part a rank."""

    ranks: ProcessGroup

    def __init__(self, trained: TrainedSet, model: PreTrainedModel, config: TrainerConfig, ranks: ProcessGroup):
        self._mesh = init_device_mesh(model.device.type, (ranks.size,))
        self._shapes = {name: trained.read(name, parameter.detach()).shape for name, parameter in trained.parameters.items()}
        super().__init__(trained, model, config, ranks)

    def _master(self, name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        return self._part(self.trained.read(name, parameter.detach()).float()).requires_grad_()

    def _part(self, whole: torch.Tensor) -> DTensor:
        """This rank's part of a tensor that every rank has."""
        return distribute_tensor(whole.flatten().to(self._mesh.device_type), self._mesh, [Shard(0)], src_data_rank=None)

    def _whole(self, name: str, part: torch.Tensor) -> torch.Tensor:
        assert isinstance(part, DTensor)
        with self.ranks.talking():
            return part.full_tensor().view(self._shapes[name])

    def _add_up(self) -> None:
        with self.ranks.talking(self._mesh.device_type):
            for name, master in self.masters.items():
                gradient = self._gradient(name).flatten()
                master.grad = DTensor.from_local(gradient, self._mesh, [Partial()], run_check=False).redistribute(placements=[Shard(0)])
                self.ranks.sent += gradient.nbytes

    def _clip(self) -> float:
        with self.ranks.talking():
            norm = torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.config.max_grad_norm)
            assert isinstance(norm, DTensor)
            return float(norm.full_tensor())

    def _write(self) -> None:
        for name, master in self.masters.items():
            rounded = master.detach().to(self.trained.parameters[name].dtype)  # before it is sent
            self.trained.write(name, self._whole(name, rounded))

    def _kept(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """The whole of a tensor where it is written, in the host's memory, and its shape alone at the other ranks."""
        return self._whole(name, part).to("cpu" if self.ranks.first else "meta")

    def values(self) -> dict[str, torch.Tensor]:
        return {name: self._kept(name, master.detach()) for name, master in self.masters.items()}

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        held = state["adamw"]["state"]
        moments = {
            index: {key: self._kept(name, value) if isinstance(value, DTensor) else value for key, value in held[index].items()}
            for index, name in enumerate(self._order)
            if index in held
        }
        return state | {"adamw": state["adamw"] | {"state": moments}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        moments = {
            index: {key: value if key == "step" else self._part(value) for key, value in held.items()}
            for index, held in state["adamw"]["state"].items()
        }
        masters = {name: self._part(whole) for name, whole in state["masters"].items()}
        super().load_state_dict({**state, "masters": masters, "adamw": state["adamw"] | {"state": moments}})
