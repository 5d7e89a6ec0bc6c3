"""What is known of the training of a policy that is evaluated."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..common.cost import Cost


class Trained(BaseModel):
    """Where a patch comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: str = Field(description="name of the algorithm, as in trainer.algorithm")
    trained_set: str = Field(description="what was trained")
    seed: int = Field(description="training seed")
    lr: float = Field(ge=0, allow_inf_nan=False, description="peak learning rate")
    parameters: int = Field(ge=1, description="parameters that were trained")
    total_parameters: int = Field(ge=1, description="parameters of the whole model")
    recipe: str = Field(description="name of the recipe")
    split: str = Field(description="split that it was trained on")
    split_digest: str = Field(description="SHA-256 of its items")
    cost: Cost = Field(description="of the training")
    step: int | None = Field(
        default=None, ge=1, description="steps done before, where the patch is that of the best point of a held-out curve; null: the last"
    )

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if self.parameters > self.total_parameters:
            raise ValueError(f"{self.parameters} parameters of {self.total_parameters}")
        return self


class TrainedElsewhere(BaseModel):
    """Where a patch comes from that was made of a model trained elsewhere (`onelayer import`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="name of the trained model, as the patch tells it")
    note: str = Field(description="how it was trained, in the words of whoever imported it")
    trained_set: str = Field(description="the set that holds every weight in which it differs from the base")
    parameters: int = Field(ge=1, description="parameters of that set")
    total_parameters: int = Field(ge=1, description="parameters of the whole model")
