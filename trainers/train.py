"""One training run: roll out, score, update, repeat; then prove that nothing else has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..agents import patch
from ..agents.agent import Agent, derive_seed, make_agent
from ..agents.engine import Sampling
from ..agents.episodes import Envs, Episode, Play, play
from ..agents.policy import Base, TrainedSet, load_base, select, weight_hashes
from ..envs import check_disjoint, load, make, parse_suite
from ..envs.config import EnvConfig
from ..envs.items import Split
from . import advantages
from .config import Config
from .learner import Learner
from .optimizer import learning_rates
from .rows import make_rows
from .run import CHECKPOINT, CONFIG, PATCH, Run, claim, read_manifest, summary_writer


def train(config: Config, directory: Path, resume: bool = False) -> Path:
    """Train the set that `config` names and write the patch; returns its path.

    Everything random derives from the seed and the step, so a run that was killed and resumed ends in the same bytes.
    A run that is complete is left as it is. Raises UserError for a set, model, suite or directory that can not be used.
    """
    if resume and read_manifest(directory) is not None:
        claim(directory / CONFIG, config)
        (directory / CHECKPOINT).unlink(missing_ok=True)  # killed right before it did so itself
        return directory / PATCH
    base, (trained,), split = prepare(config, [config.trainer.trained_set])
    agent, envs = make_agent(base, config.agent, config.env), Envs(lambda: make(config.env, "train"))
    learner = Learner(base, trained, config)
    with Run.open(directory, config, base, trained, split, resume) as run:
        learner.load(run.checkpoint)
        for step in run.steps(learner.step, config.trainer.steps):
            with run.phase("rollout"):
                episodes = rollout(agent, envs, split, config, step)
            with run.phase("update"):
                metrics = learner.update(make_rows(episodes, advantages_of(episodes), learner.optimizer.steps))
            run.log(step, rollout_metrics(episodes) | metrics)
            run.save_checkpoint(learner.state(), last=step + 1 == config.trainer.steps)
        assert_untouched(base, trained)
        return run.finish(patch.Patch(base.fingerprint, trained.spec, learner.optimizer.masters))


def prepare(config: Config, trained_sets: Sequence[str]) -> tuple[Base, list[TrainedSet], Split]:
    """The base, the sets and the items to train on. Raises UserError for all that would stop a run of one of the sets later."""
    if config.trainer.tensorboard:
        summary_writer()
    split = training_split(config)
    base = load_base(config.model)
    sets = [select(base.model, name) for name in trained_sets]
    for trained in sets:
        learning_rates(trained, base.model, config.trainer)
    return base, sets, split


def training_split(config: Config) -> Split:
    """The items trained on. Raises UserError where the evaluation shares any of them."""
    split = load(config.env, "train")
    check_disjoint(split, load(*evaluation_suite(config)))
    return split


def evaluation_suite(config: Config) -> tuple[EnvConfig, str]:
    """Environment and split that the recipe's policies are evaluated on."""
    return parse_suite(config.eval.suite, config.env) if config.eval.suite else (config.env, "test")


def rollout(agent: Agent, envs: Envs, split: Split, config: Config, step: int) -> list[Episode]:
    """`prompts_per_step` groups of `group_size` episodes, in the order of their groups."""
    settings = config.trainer
    plays = [
        Play(item, group, derive_seed(settings.seed, step, item, number))
        for group, item in enumerate(draw_items(split, settings.seed, step, settings.prompts_per_step))
        for number in range(settings.group_size)
    ]
    sampling = Sampling(config.agent.max_tokens, config.agent.temperature)
    return sorted(play(agent, envs, plays, sampling), key=lambda episode: episode.index)


def draw_items(split: Split, seed: int, step: int, count: int) -> list[str]:
    """Items of one step: consecutive places in an endless sequence of shuffled passes over the split."""
    places = [divmod(place, len(split.items)) for place in range(step * count, (step + 1) * count)]
    passes = {epoch: np.random.default_rng([seed, epoch]).permutation(len(split.items)) for epoch, _ in places}
    return [split.items[passes[epoch][at]].id for epoch, at in places]


def advantages_of(episodes: Sequence[Episode]) -> list[float]:
    """One advantage an episode, from the rewards of its group."""
    rewards: dict[int, list[float]] = {}
    for episode in episodes:
        rewards.setdefault(episode.play.group, []).append(episode.reward)
    scores = {group: iter(advantages.grpo(np.array(values))) for group, values in rewards.items()}
    return [float(next(scores[episode.play.group])) for episode in episodes]


def rollout_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """What the rollout says about the policy, before it is updated."""
    steps = [step for episode in episodes for step in episode.steps]
    groups: dict[int, set[float]] = {}
    for episode in episodes:
        groups.setdefault(episode.play.group, set()).add(episode.reward)
    return {
        "reward": float(np.mean([episode.reward for episode in episodes])),
        "success": float(np.mean([episode.reward > 0 for episode in episodes])),
        "groups_with_signal": float(np.mean([len(rewards) > 1 for rewards in groups.values()])),
        "response_length": float(np.mean([len(step.token_ids) for step in steps])),
        "truncated": float(np.mean([step.truncated for step in steps])),
        "tokens": sum(episode.tokens for episode in episodes),
    }


def assert_untouched(base: Base, trained: TrainedSet) -> None:
    """Hash every weight outside the trained set again. Raises RuntimeError if one has changed: the run is void."""
    frozen = [name for name in base.hashes if name not in trained.parameters]
    now = weight_hashes(base.model, frozen)
    if changed := [name for name in frozen if now[name] != base.hashes[name]]:
        raise RuntimeError(f"training {trained.spec} changed {len(changed)} weights outside it, first {changed[0]}")
