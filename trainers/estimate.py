"""What a run takes before it is begun: tokens and operations of a step, peak memory by part, and disk.

Lengths are the most that can be: every reply as long as `agent.max_tokens`, every episode of all its turns, every observation as long as
the first. The memory of the update is that of the learner's own code, run on a model without values (traced.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..agents.config import SERVER, ModelConfig, engine_row, history
from ..agents.decoder import decoder_layers
from ..agents.drawing import SAMPLED_LOGITS
from ..agents.engine import ENCODED_TOKENS, KEPT_BYTES
from ..agents.flops import multiplied, training_flops
from ..agents.length import context_of, with_length
from ..agents.packed import matrices, packed_size
from ..agents.prefix import bytes_per_token, encode_prompts
from ..agents.trained_sets import TrainedSet, select
from .config import Config, TrainerConfig
from .forward import Pack, packs
from .learner import Learner, Totals
from .rows import TrainingRow, weighted
from .traced import Ledger

DRAWN_BYTES = 20
"""Of a logit that tokens are drawn from: as a logit and as a log-probability in float32, its exponential, and their sum in float64."""

TOKENIZER_BYTES = 1100
"""Of a token of the vocabulary, in main memory: measured were 890 with the tokenizer of Qwen2.5 and 1,280 with that of Gemma 3."""


class Memory(BaseModel):
    """Bytes at the moment when a phase of a step holds the most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: int = Field(description="the model, in its numeric format")
    trained: int = Field(description="what the optimiser holds: float32 masters, gradients and two moments of the trained set")
    activations: int = Field(description="the decoder's intermediate values")
    head: int = Field(description="logits, and what is computed from them")
    keys_and_values: int = Field(description="the engine's cache")
    copy_of_engine: int = Field(default=0, description="the weights as vLLM in this process holds them, beside the model")

    @property
    def total(self) -> int:
        return sum(self.model_dump().values())


class Estimate(BaseModel):
    """A run of one trained set, at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_set: str
    parameters: int = Field(description="of the whole model")
    trained_parameters: int
    episodes: int = Field(description="of a step")
    tokens: int = Field(description="of a step: prompts and replies of all episodes")
    flops: float = Field(description="operations of a step: rollout and update")
    rollout_flops: float = Field(description="of these the rollout's")
    rollout: Memory | None = Field(description="null: the model's code cannot be followed without values")
    update: Memory | None = Field(description="as rollout")
    tokenizer: int = Field(description="bytes of the tokenizer, about; in main memory, and in none of the phases")
    gathered: int = Field(
        description="bytes that a device holds whole at a time where all parameters are divided over several devices: two decoder layers, "
        "and what is in none of them"
    )
    patch: int = Field(description="bytes of the trained weights on disk, and as many of those of the best point with eval.keep_best")
    checkpoint: int = Field(description="bytes of the file that a run is resumed from")

    @property
    def peak(self) -> int | None:
        """Bytes of the model and all that is computed with it, as far as known; the program itself comes on top."""
        return max(self.rollout.total, self.update.total) if self.rollout and self.update else None


@dataclass(frozen=True)
class Lengths:
    """Tokens of an episode, at most."""

    prompts: list[int]
    """Of each prompt that is computed; one, where a conversation grows."""
    replies: list[int]
    """What follows each: the reply, or the rest of the conversation."""

    @property
    def total(self) -> int:
        return sum(self.prompts) + sum(self.replies)

    @property
    def longest(self) -> tuple[int, int]:
        """Prompt and reply of the turn that has the most tokens."""
        return max(zip(self.prompts, self.replies, strict=True), key=sum)


def lengths(config: Config, first_prompt: int, turns: int, context: int) -> Lengths:
    """first_prompt: tokens of an episode's first prompt; turns: replies of an episode; context: tokens that the model takes."""
    reply, shown = config.agent.reply_length, history(config.agent.history, config.env.id)
    longest = min(context - reply, config.agent.max_prompt or context)
    first = min(first_prompt, longest)
    if shown == "full":
        return Lengths([first], [min(turns * reply + (turns - 1) * first_prompt, longest - first + reply)])
    prompts = [min(longest, first + min(turn, shown) * (first_prompt + reply)) for turn in range(turns)]
    return Lengths(prompts, [reply] * turns)


def estimate(config: Config, shape: PreTrainedConfig, first_prompt: int, turns: int = 1) -> Estimate:
    """What a run of the recipe's trained set takes on a model of this shape; `lengths` has the other arguments.

    Raises UserError for a set that the model does not have.
    """
    settings, dtype = config.trainer, getattr(torch, config.model.dtype)
    without_values = FakeTensorMode(allow_non_fake_inputs=True)
    with without_values:
        model = AutoModelForCausalLM.from_config(shape, dtype=dtype).eval()
        base = [*model.parameters(), *model.buffers()]
    config = config.model_copy(update={"agent": with_length(config.agent, model, config.env)})
    trained = select(model, settings.trained_set)
    with trained.attached(settings.seed):
        # The reference's pass comes before the gradient's and holds less; what it leaves behind is counted below.
        alone = config.model_copy(update={"trainer": settings.model_copy(update={"kl_coef": 0.0})})
        learner, of_one = Learner(model, trained, alone), lengths(config, first_prompt, turns, context_of(model))
        held, moments = state_of(learner)
        reference = sum(weight.nbytes for weight in trained.parameters.values()) if settings.kl_coef else 0
        places = sum(8 * len(chosen) for chosen in trained.places.values())
        with without_values:
            hands_over = learner.inputs_of is not None and engine_row(config.agent.engine) == "transformers"
            weights = _bytes(base) - _saved(config.model, model, trained)
            phases = _Phases(config, model, of_one, weights, _bytes(held) + moments + reference + places, hands_over)
            try:
                rollout, update = phases.rollout([*base, *held]), phases.update([*base, *held], learner)
            except RuntimeError:  # shapes that depend on values, or a kernel that takes another numeric format
                rollout = update = None
        parameters, above, tokens = multiplied(model), multiplied(model, trained.first_layer), phases.episodes * of_one.total
    handed_over = tokens if hands_over else 0
    learned = training_flops(tokens, parameters, above, trained.count, settings.epochs, settings.kl_coef > 0, handed_over)
    return Estimate(
        trained_set=trained.spec,
        parameters=trained.total,
        trained_parameters=trained.count,
        episodes=phases.episodes,
        tokens=tokens,
        flops=2.0 * parameters * tokens + learned,
        rollout_flops=2.0 * parameters * tokens,
        rollout=rollout,
        update=update,
        tokenizer=TOKENIZER_BYTES * phases.vocabulary,
        gathered=_gathered(model),
        patch=(2 if config.eval.keep_best else 1) * (4 * trained.count + 8 * sum(map(len, trained.places.values()))),
        checkpoint=12 * trained.count,
    )


class _Phases:
    """The two phases of a step that hold memory: what each has at most."""

    def __init__(self, config: Config, model: PreTrainedModel, of_one: Lengths, weights: int, state: int, hands_over: bool):
        """hands_over: the update starts with what the rollout has kept."""
        self.config, self.model, self.of_one, self.weights, self.state = config, model, of_one, weights, state
        self.episodes = config.trainer.prompts_per_step * config.trainer.group_size
        self.vocabulary = model.config.get_text_config().vocab_size
        agent, column = config.agent, bytes_per_token(model)
        limit, width = int(agent.kv_cache_gib * 2**30), max(map(sum, zip(of_one.prompts, of_one.replies, strict=True)))
        self.slots = max(1, min(agent.max_batch, self.episodes, limit // (width * column)))
        conversations = min(limit, self.episodes * width * column) if history(agent.history, config.env.id) == "full" else 0
        self.engine = engine_row(agent.engine)
        self.cache = {"vllm": limit, SERVER: 0}.get(self.engine or "", self.slots * width * column + conversations)
        self.copy = _bytes([*model.parameters(), *model.buffers()]) if self.engine == "vllm" else 0
        self.state_bytes = model.config.get_text_config().hidden_size * model.dtype.itemsize  # of one hidden state
        played = self.episodes * (1 + config.trainer.dynamic_sampling)
        self.handed_over = min(limit, played * of_one.total * self.state_bytes) if hands_over else 0
        self.decoding = self.slots * max(of_one.replies) * self.state_bytes if hands_over else 0

    def rollout(self, there: list[torch.Tensor]) -> Memory:
        """The engine's: prompts are encoded, and then a token a row is drawn at a time. What vLLM computes with is in none of the parts."""
        if self.engine in ("vllm", SERVER):
            return self._memory(0, 0, self.cache)
        longest = max(self.of_one.prompts)
        with Ledger(there, self.vocabulary) as ledger, torch.no_grad():
            encode_prompts(self.model, [[0] * longest] * max(1, min(self.config.trainer.prompts_per_step, ENCODED_TOKENS // longest)))
        logits = self.slots * self.vocabulary
        drawn = logits * self.model.dtype.itemsize + min(logits, SAMPLED_LOGITS) * DRAWN_BYTES
        return self._memory(ledger.peak_other + self.handed_over + self.decoding, drawn, self.cache)

    def update(self, there: list[torch.Tensor], learner: Learner) -> Memory:
        """The learner's, on a pack that is as full as one can be."""
        settings = self.config.trainer
        with Ledger(there, self.vocabulary) as ledger:
            learner.backward(fullest(learner, self.of_one, settings), Totals())
        reused = settings.several_passes and learner.trained.first_layer > 0
        kept = self.handed_over or (self.constants(learner.tokens_per_forward) if reused else 0)
        stays = self.engine == "vllm" or self.cache <= KEPT_BYTES
        return self._memory(ledger.peak_other + kept, ledger.peak_head, self.cache if stays else 0)

    def constants(self, tokens: int) -> int:
        """Bytes of the inputs of the lowest trained layer that are kept: of a pack, from the reference's pass to the gradient's; of the
        whole batch, where a pass over all packs for the policy before the update comes first. tokens: of a pass."""
        settings, size = self.config.trainer, self.state_bytes
        prompt, reply = self.of_one.longest
        packed = prompts_of_pack(prompt, settings, tokens) * (prompt + settings.group_size * reply)
        whole = self.episodes * self.of_one.total
        return size * (whole if settings.epochs * settings.minibatches > 1 else min(whole, packed))

    def _memory(self, activations: int, head: int, keys_and_values: int) -> Memory:
        parts = {"activations": activations, "head": head, "keys_and_values": keys_and_values}
        return Memory(weights=self.weights, trained=self.state, copy_of_engine=self.copy, **parts)


def state_of(learner: Learner) -> tuple[list[torch.Tensor], int]:
    """What the optimiser and the reference hold from a first pass on, and bytes of the moments, which come with the first step."""
    masters = learner.optimizer.masters
    for master in masters.values():
        master.grad = torch.zeros_like(master)
    grads = [master.grad for master in masters.values() if master.grad is not None]
    held = [*masters.values(), *grads, *(learner.reference or {}).values()]
    known = {id(parameter) for parameter in learner.model.parameters()}
    return [tensor for tensor in held if id(tensor) not in known], 2 * _bytes(grads)


def prompts_of_pack(prompt: int, settings: TrainerConfig, tokens: int) -> int:
    """How many prompts of this length share a pass of so many tokens, at most (forward.py: packs)."""
    return max(1, min(settings.prompts_per_step, tokens // 2 // prompt))


def fullest(learner: Learner, of_one: Lengths, settings: TrainerConfig) -> Pack:
    """The first two buckets, after which all are alike, of a pack of the longest rows."""
    (prompt, reply), tokens = of_one.longest, learner.tokens_per_forward
    prompts = prompts_of_pack(prompt, settings, tokens)
    each = min(settings.group_size, max(1, 2 * tokens // (reply * prompts) + 1))
    rows = [
        TrainingRow([group] * prompt, [0] * reply, [True] * reply, [0.0] * reply, [1.0] * reply, [False] * reply, "", group, 0, 0)
        for group in range(prompts)
        for _ in range(each)
    ]
    pack = packs(weighted(rows, settings, reply), tokens, learner.model.device)[0]
    return Pack(pack.prompts, pack.buckets[:2])


def _gathered(model: PreTrainedModel) -> int:
    """The largest decoder layer, the next one, which is fetched while it computes, and embeddings, head and final norm."""
    layers = [_bytes(list(layer.parameters())) for layer in decoder_layers(model)]
    return _bytes(list(model.parameters())) - sum(layers) + 2 * max(layers)


def _saved(config: ModelConfig, model: PreTrainedModel, trained: TrainedSet) -> int:
    """Bytes that weights take less for being quantised."""
    packed = {name: weight for name, weight in matrices(model).items() if config.quantization and name not in trained.parameters}
    before = sum(weight.nbytes for weight in packed.values())
    if config.quantization == "gguf":
        share = sum(weight.numel() for weight in packed.values()) / sum(weight.numel() for weight in model.parameters())
        return before - int(share * Path(config.path).stat().st_size)
    return before - sum(packed_size(str(config.quantization), weight) for weight in packed.values())


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum({tensor.untyped_storage()._cdata: tensor.nbytes for tensor in tensors}.values())
