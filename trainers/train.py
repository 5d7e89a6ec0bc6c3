"""One training run: roll out, score, update, repeat; then prove that nothing else has changed."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..agents import patch
from ..agents.agent import Agent, derive_seed, make_agent
from ..agents.engine import Sampling
from ..agents.episodes import CORRECT, Episode, Play, play
from ..agents.policy import Base, TrainedSet, load_base, select, weight_hashes
from ..envs import check_disjoint, load, parse_suite
from ..envs.config import EnvConfig
from ..envs.errors import UserError
from ..envs.items import Split
from ..envs.pool import Pool, open_pool
from . import algorithms
from .config import Config, TrainerConfig
from .learner import Learner
from .optimizer import learning_rates
from .rows import make_rows, survivors
from .run import CHECKPOINT, CONFIG, PATCH, Run, claim, finished, read_manifest, summary_writer

LOST_SHARE, LOST_LEAST, LOST_WINDOW = 0.05, 8, 256
"""A run stops where more than this share, and at least this many, of the last episodes were lost; see `Losses`."""

_log = logging.getLogger(__name__)


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
    agent, learner, losses = make_agent(base, config.agent, config.env), Learner(base, trained, config), Losses()
    with open_pool(config.env, "train", config.pool) as pool, Run.open(directory, config, base, trained, split, resume) as run:
        learner.load(run.checkpoint)
        for step in run.steps(learner.step, config.trainer.steps):
            try:
                with run.phase("rollout"):
                    played = losses.watch(step, *rollout(agent, pool, split, config, step))
            except UserError as error:
                run.save_checkpoint(learner.state(), last=True)
                raise UserError(f"{error}; then continue with: {shlex.join(['onelayer', 'train', '--resume', str(directory)])}") from error
            episodes = survivors(played)
            with run.phase("update"):
                rows = make_rows(
                    episodes, advantages(episodes, config.trainer), config.trainer, config.agent.max_tokens, learner.optimizer.steps
                )
                metrics = learner.update(rows)
            run.log(step, rollout_metrics(episodes or played) | {"dropped": len(played) - len(episodes)} | metrics)
            run.save_checkpoint(learner.state(), last=step + 1 == config.trainer.steps)
        assert_untouched(base, trained)
        run.finish(patch.Patch(base.fingerprint, trained.spec, learner.optimizer.masters))
    if dropped := finished(directory).dropped:
        _log.warning("%s: %d episodes in all were dropped, since environments failed", directory, dropped)
    return directory / PATCH


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


def rollout(agent: Agent, pool: Pool, split: Split, config: Config, step: int) -> tuple[Iterable[Episode], int]:
    """`prompts_per_step` groups of `group_size` episodes, as they end, and how many there will be."""
    settings = config.trainer
    items = draw_items(split, settings.seed, step, settings.prompts_per_step)
    plays = [
        Play(item, group, derive_seed(settings.seed, step, item, number), derive_seed(settings.seed, step, item, "start", again) % 2**32)
        for group, item in enumerate(items)
        for again in [items[:group].count(item)]  # a small split comes round within a step: other samples then, from another start
        for number in range(again * settings.group_size, (again + 1) * settings.group_size)
    ]
    sampling = Sampling(config.agent.max_tokens, config.agent.temperature)
    return play(agent, pool, plays, sampling), len(plays)


class Losses:
    """Episodes that failing environments have lost, and the stop where these are too many.

    A few are no harm: they are left out of their groups. Too many are more than 5% of a step's episodes. A small step has no shares
    worth the name, so one of fewer than 256 episodes is taken together with the steps before it, as many as make 256, and fewer
    than 8 lost episodes never stop a run; unless more than one was lost and no group of the step is left to learn from.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []  # lost and played

    def watch(self, step: int, episodes: Iterable[Episode], count: int) -> list[Episode]:
        """The step's `count` episodes, in the order of their groups. Raises UserError as soon as too many are lost."""
        played, first, lost = [], "", 0
        window, earlier = count, 0
        for lost_then, count_then in reversed(self._steps):
            if window < LOST_WINDOW:
                window, earlier = window + count_then, earlier + lost_then
        problem = ""
        for episode in episodes:
            played.append(episode)
            if episode.error:
                lost, first = lost + 1, first or episode.error
                if lost + earlier >= LOST_LEAST and lost + earlier > LOST_SHARE * window:
                    problem = f"{lost + earlier} of the last {window} episodes, more than {LOST_SHARE:.0%}"
                    break
        if lost > 1 and not problem and not survivors(played):
            problem = f"{lost} of {count} episodes, and no group is left"
        if problem:
            raise UserError(f"step {step}: environments failed in {problem}; first: {first}; mend the environment")
        if lost:
            _log.warning("step %d: %d of %d episodes lost, first: %s", step, lost, count, first)
        self._steps.append((lost, count))
        return sorted(played, key=lambda episode: episode.index)


def draw_items(split: Split, seed: int, step: int, count: int) -> list[str]:
    """Items of one step: consecutive places in an endless sequence of shuffled passes over the split."""
    places = [divmod(place, len(split.items)) for place in range(step * count, (step + 1) * count)]
    passes = {epoch: np.random.default_rng([seed, epoch]).permutation(len(split.items)) for epoch, _ in places}
    return [split.items[passes[epoch][at]].id for epoch, at in places]


def advantages(episodes: Sequence[Episode], settings: TrainerConfig) -> list[float]:
    """One advantage for each step of each episode, by the algorithm."""
    steps = [(episode, step) for episode in episodes for step in episode.steps]
    rollout = algorithms.Steps(
        np.array([step.reward for _, step in steps]),
        [episode.index for episode, _ in steps],
        [episode.play.group for episode, _ in steps],
        [step.anchor for _, step in steps],
        [step.valid for _, step in steps],
    )
    return algorithms.advantages(rollout, settings).tolist()


def rollout_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """What the rollout says about the policy, before it is updated."""
    steps = [step for episode in episodes for step in episode.steps]
    groups: dict[int, set[float]] = {}
    for episode in episodes:
        groups.setdefault(episode.play.group, set()).add(episode.reward)
    return {
        "reward": float(np.mean([episode.reward for episode in episodes])),
        "success": float(np.mean([episode.verdict == CORRECT for episode in episodes])),
        "groups_with_signal": float(np.mean([len(rewards) > 1 for rewards in groups.values()])),
        "response_length": float(np.mean([len(step.token_ids) for step in steps])),
        "truncated": float(np.mean([step.truncated for step in steps])),
        "episode_steps": len(steps) / len(episodes),
        "valid_actions": float(np.mean([step.valid for step in steps])),
        "overlong": float(np.mean([episode.overlong for episode in episodes])),
        "tokens": sum(episode.tokens for episode in episodes),
    }


def assert_untouched(base: Base, trained: TrainedSet) -> None:
    """Hash every weight outside the trained set again. Raises RuntimeError if one has changed: the run is void."""
    frozen = [name for name in base.hashes if name not in trained.parameters]
    now = weight_hashes(base.model, frozen)
    if changed := [name for name in frozen if now[name] != base.hashes[name]]:
        raise RuntimeError(f"training {trained.spec} changed {len(changed)} weights outside it, first {changed[0]}")
