"""One training run: roll out, score, update, repeat; then prove that nothing else has changed."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel

from ..agents import patch
from ..agents.agent import Agent, make_agent
from ..agents.engine import Sampling
from ..agents.episodes import Episode, Play, assert_prompts_fit, play
from ..agents.flops import multiplied, tokens_forwarded, training_flops
from ..agents.length import with_length
from ..agents.packed import unpacked
from ..agents.policy import Base, load_base, part_hashes, tensor_hash, weight_hashes
from ..agents.trained_sets import TrainedSet, select, select_all
from ..agents.verdicts import CORRECT
from ..common.errors import UserError
from ..common.seeds import derive_seed
from ..envs import check_disjoint, load, parse_suite
from ..envs.config import EnvConfig
from ..envs.items import Split
from ..envs.pool import Pool, open_pool
from ..evals.failures import ALWAYS, LOST_SHARE
from ..evals.records import cut_off_warning
from ..evals.replies import mean_metrics
from .algorithms.steps import Steps
from .config import Config, TrainerConfig
from .follower import open_run
from .forward import default_tokens
from .held_out import HeldOut, panel_of, panel_player
from .learner import Learner
from .manifest import CHECKPOINT, CONFIG, PATCH, read_manifest
from .metrics import PART
from .optimizer import learning_rates
from .ranks import ONE_PROCESS, Ranks
from .rows import TrainingRow, make_rows, survivors
from .run import claim, extends, summary_writer

LOST_LEAST, LOST_WINDOW = 8, 256
"""A run stops where more than LOST_SHARE, and at least this many, of the last episodes were lost; see `LostEpisodes`."""

_log = logging.getLogger(__name__)


def train(config: Config, directory: Path, resume: bool = False, prepared: Prepared | None = None, ranks: Ranks = ONE_PROCESS) -> Path:
    """Train the set that `config` names and write the patch; returns its path.

    prepared: what `prepare` made of this recipe, where that has been done; null: it is done here. Afterwards the model is the policy where
    weights of its own were trained; adapters are taken out of it. ranks: the processes that train it together, all of which call this.
    Everything random derives from the seed and the step, so a run that was killed and resumed ends in the same bytes.
    A run that is complete is left as it is, unless it is resumed with more steps. The checkpoint for that is kept, but in a study.
    Raises UserError for a set, model, suite or directory that cannot be used.
    """
    ranks.check(config)
    if ranks.from_first(lambda: resume and is_complete(directory, config, prepared)):
        return directory / PATCH
    config, base, (trained,), split, first_point = prepared or prepare(config)
    ranks.agree_on("the recipe, the base or the items", lambda: (config.model_dump_json(), base.fingerprint, split.digest))
    agent = make_agent(base, config.agent, config.env)
    if not agent.engine.returns_tokens:
        raise UserError(
            f"training learns from the tokens that were sampled, and {type(agent.engine).__name__} returns only their text; "
            "take an engine that returns tokens, and use this one for evaluation"
        )
    agent.engine.load({})  # an engine that takes no weights says so before anything is made
    parts = part_hashes(trained)
    losses, cut_off = LostEpisodes(), False
    with ExitStack() as stack:
        pool = stack.enter_context(open_pool(config.env, "train", config.pool))
        assert_prompts_fit(agent, pool, split)
        run = stack.enter_context(open_run(directory, config, base, trained, split, resume, ranks))
        attached = stack.enter_context(ExitStack())
        attached.enter_context(unpacked(base.model, trained.parameters))
        attached.enter_context(trained.attached(config.trainer.seed))
        learner = Learner(base.model, trained, config, ranks)
        parameters, above = multiplied(base.model), multiplied(base.model, trained.first_layer)
        learner.load(run.checkpoint)
        run.keep_episodes(agent)
        agent.engine.load(trained.weights())

        def result() -> patch.Patch:
            return patch.Patch(base.fingerprint, trained.spec, trained.contents(learner.optimizer.values()))

        measure = stack.enter_context(panel_player(config, base, agent, run, result, first_point))
        for step in run.steps(learner.step, config.trainer.steps):
            measure(step)
            try:
                with run.phase("rollout"):
                    played, groups = rollout(agent, pool, split, config, step, losses, learner.inputs_of, ranks)
            except UserError as error:
                run.save_checkpoint(learner.step, learner.state, last=True)
                raise UserError(f"{error}; then continue with: {shlex.join(ranks.resume_command(directory))}") from error
            if not any(episode.steps for episode in played):
                raise UserError(f"step {step}: every prompt is longer than {agent.prompt_limit}")
            if run.episodes:
                run.episodes.add(step, played, advantages_of(groups))
            with run.phase("update"):
                metrics = learner.update(rows_of(groups, config))
            run.meter.tokens += sum(len(step.token_ids) for episode in played for step in episode.steps)
            run.meter.flops += 2.0 * parameters * tokens_forwarded(played) + training_flops(
                int(metrics["tokens_updated"] or 0),
                parameters,
                above,
                trained.count,
                config.trainer.epochs,
                config.trainer.kl_coef > 0,
                int(metrics["tokens_handed_over"] or 0),
            )
            with run.phase("sync"):
                agent.engine.load(trained.weights())
            seen = rollout_metrics(played, groups)
            if not cut_off and (warning := cut_off_warning(seen["truncated"], config.agent.reply_length)):
                _log.warning("%s: step %d: %s", directory, step, warning)
                cut_off = True  # told once
            run.log(step, seen | metrics)
            run.save_checkpoint(learner.step, learner.state, last=step + 1 == config.trainer.steps)
            del played, groups  # with all that the rollout handed over
        measure(config.trainer.steps)
        learner.optimizer.close()
        attached.close()
        assert_untouched(base, trained, parts)
        ranks.agree_on("the trained weights", lambda: [tensor_hash(weight) for weight in trained.parameters.values()])
        run.finish(result(), keep_checkpoint=not prepared)
    return directory / PATCH


def is_complete(directory: Path, config: Config, prepared: Prepared | None) -> bool:
    """Whether the run there is complete, and has as many steps as are asked for. Raises UserError where it is of another configuration."""
    if read_manifest(directory) is None or extends(directory, config):
        return False
    claim(directory / CONFIG, config)
    if prepared:
        (directory / CHECKPOINT).unlink(missing_ok=True)  # killed right before it did so itself
    return True


class Prepared(NamedTuple):
    """What a recipe stands for."""

    config: Config
    """The recipe with everything in it that a model decides."""
    base: Base
    sets: list[TrainedSet]
    split: Split
    """The items to train on."""
    first_point: HeldOut | None = None
    """The base's point of the held-out curve, where it is known."""


def prepare(config: Config, trained_sets: Sequence[str] | None = None) -> Prepared:
    """Load what the recipe names. Raises UserError for all that would stop a run of one of the sets later.

    trained_sets: those of a study; null: that of the run.
    """
    if config.trainer.tensorboard:
        summary_writer()
    config.trainer.algorithm.check()
    split = training_split(config)
    if config.eval.every:
        panel_of(config)
    elif config.eval.keep_best:
        raise UserError("eval.keep_best: there are no points to choose from; set eval.every, the steps between two points")
    base = load_base(config.model)
    settled = settle(config, base.model)
    sets = [select(base.model, config.trainer.trained_set)] if trained_sets is None else select_all(base.model, trained_sets)
    for trained in sets:
        with trained.attached(config.trainer.seed):
            learning_rates(trained, base.model, config.trainer)
    return Prepared(settled, base, sets, split)


def settle(config: Config, model: PreTrainedModel) -> Config:
    """The recipe with everything in it that a model decides. Raises UserError where a reply would leave no token for a prompt."""
    agent = with_length(config.agent, model, config.env, evaluation_suite(config)[0])
    tokens = config.trainer.tokens_per_forward or default_tokens(model)
    trainer = config.trainer.model_copy(update={"tokens_per_forward": tokens})  # it changes the order of sums, so a run keeps to it
    return config.model_copy(update={"agent": agent, "trainer": trainer})


def training_split(config: Config) -> Split:
    """The items trained on. Raises UserError where the evaluation shares any of them."""
    split = load(config.env, "train")
    check_disjoint(split, load(*evaluation_suite(config)))
    return split


def evaluation_suite(config: Config) -> tuple[EnvConfig, str]:
    """Environment and split that the recipe's policies are evaluated on."""
    return parse_suite(config.eval.suite, config.env) if config.eval.suite else (config.env, "test")


@dataclass(frozen=True)
class Group:
    """The episodes of one item that the infrastructure has not lost, and the advantage of each of their steps."""

    episodes: list[Episode]
    advantages: list[float]

    @property
    def has_signal(self) -> bool:
        return any(self.advantages)


def rollout(
    agent: Agent,
    pool: Pool,
    split: Split,
    config: Config,
    step: int,
    losses: LostEpisodes,
    inputs_of: int | None = None,
    ranks: Ranks = ONE_PROCESS,
) -> tuple[list[Episode], list[Group]]:
    """All episodes of a step, and the groups of them to learn from: of `prompts_per_step` items, with `group_size` episodes each.

    Groups without any advantage teach nothing. With `dynamic_sampling` as many others are played, so many times at most, and take their
    place where they have one (Yu et al. 2025, "DAPO", eq. 11). It is the advantages that count: under gigpo a group of equal
    returns has some, too. Advantages may compare groups, so those learned from are scored once more, together.
    inputs_of: a decoder layer whose input is kept of all that is played.
    """
    settings, sampling = config.trainer, Sampling(config.agent.reply_length, config.agent.temperature)
    items = draw_items(split, settings.seed, step, settings.prompts_per_step)
    others = other_items(split, settings.seed, step, items)
    played: list[Episode] = []
    groups: list[Group] = []
    for _ in range(1 + settings.dynamic_sampling):
        plays = plays_of(items, settings, step)[len(played) :]
        episodes = ranks.dealt(plays, lambda dealt: play(agent, pool, dealt, sampling, inputs_of))
        new = losses.watch(step, episodes, len(plays), played)
        played += new
        groups = scored(survivors(played), settings)
        missing = settings.prompts_per_step - sum(group.has_signal for group in groups)
        if not missing:
            break
        items = [*items, *islice(others, missing)]
    kept = sorted(groups, key=lambda group: not group.has_signal)[: settings.prompts_per_step]
    return played, scored([episode for group in kept for episode in group.episodes], settings)


def plays_of(items: Sequence[str], settings: TrainerConfig, step: int) -> list[Play]:
    """`group_size` plays of each item, group after group."""
    return [
        Play(item, group, derive_seed(settings.seed, step, item, number), derive_seed(settings.seed, step, item, "start", again) % 2**32)
        for group, item in enumerate(items)
        for again in [items[:group].count(item)]  # a small split comes round within a step: other samples then, from another start
        for number in range(again * settings.group_size, (again + 1) * settings.group_size)
    ]


class LostEpisodes:
    """Episodes that failing environments have lost, and the stop where these are too many.

    A few are no harm: they are left out of their groups. Too many are more than 5% of a step's episodes. A small step has no shares
    worth the name, so one of fewer than 256 episodes is taken together with the steps before it, as many as make 256, and fewer
    than 8 lost episodes never stop a run; unless more than one was lost and no group of the step is left to learn from.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []  # lost and played

    def watch(self, step: int, episodes: Iterable[Episode], count: int, before: Sequence[Episode] = ()) -> list[Episode]:
        """`count` episodes of the step in the order of their plays, numbered on from those `before`.

        Raises UserError as soon as too many are lost, and where the environment raised on every reply of the step.
        """
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
        if lost > 1 and not problem and not survivors([*before, *played]):
            problem = f"{lost} of {count} episodes, and no group is left"
        blamed = [episode.blamed for episode in played if episode.blamed]
        if len(blamed) == len(played) >= ALWAYS:
            problem, first = f"each of {count} episodes on the model's reply", blamed[0]
        if problem:
            raise UserError(f"step {step}: environments failed in {problem}; first: {first}; correct the environment")
        if lost:
            _log.warning("step %d: %d of %d episodes lost, first: %s", step, lost, count, first)
        if len(blamed) > LOST_SHARE * count:
            _log.warning("step %d: the environment raised on %d of %d replies, which get 0; first: %s", step, len(blamed), count, blamed[0])
        self._steps.append((lost, count))
        for episode in played:
            episode.index += len(before)
        return sorted(played, key=lambda episode: episode.index)


def draw_items(split: Split, seed: int, step: int, count: int) -> list[str]:
    """Items of one step: consecutive places in an endless sequence of shuffled passes over the split."""
    places = [divmod(place, len(split.items)) for place in range(step * count, (step + 1) * count)]
    passes = {epoch: np.random.default_rng([seed, epoch]).permutation(len(split.items)) for epoch, _ in places}
    return [split.items[passes[epoch][at]].id for epoch, at in places]


def other_items(split: Split, seed: int, step: int, drawn: Sequence[str]) -> Iterator[str]:
    """Items to play in place of others, without end: all of the split in an order of the step's own, those already drawn last."""
    order = np.random.default_rng(derive_seed(seed, step, "other items")).permutation(len(split.items))
    yield from cycle(sorted((split.items[at].id for at in order), key=set(drawn).__contains__))


def scored(episodes: Sequence[Episode], settings: TrainerConfig) -> list[Group]:
    """The episodes' groups, in order, with the advantages of their steps."""
    members: dict[int, list[Episode]] = {}
    for episode in episodes:
        members.setdefault(episode.play.group, []).append(episode)
    rest = iter(advantages([episode for group in members.values() for episode in group], settings))
    return [Group(group, list(islice(rest, sum(len(episode.steps) for episode in group)))) for group in members.values()]


def advantages(episodes: Sequence[Episode], settings: TrainerConfig) -> list[float]:
    """One advantage for each step of each episode, by the algorithm."""
    steps = [(episode, step) for episode in episodes for step in episode.steps]
    rollout = Steps(
        np.array([step.reward for _, step in steps]),
        [episode.index for episode, _ in steps],
        [episode.play.group for episode, _ in steps],
        [step.anchor for _, step in steps],
        [step.valid for _, step in steps],
    )
    return settings.algorithm.advantages(rollout).tolist()


def advantages_of(groups: Sequence[Group]) -> dict[int, list[float]]:
    """The advantages of each episode's steps, by its index."""
    found = {}
    for group in groups:
        rest = iter(group.advantages)
        found |= {episode.index: list(islice(rest, len(episode.steps))) for episode in group.episodes}
    return found


def rows_of(groups: Sequence[Group], config: Config) -> list[TrainingRow]:
    """The rows of all groups, weighted as one batch."""
    episodes = [episode for group in groups for episode in group.episodes]
    advantage_N = [advantage for group in groups for advantage in group.advantages]
    return make_rows(episodes, advantage_N, config.trainer, config.agent.reply_length)


def rollout_metrics(played: Sequence[Episode], groups: Sequence[Group]) -> dict[str, float]:
    """What a rollout says about the policy, before it is updated: of all that was played, whether it is learned from or not."""
    episodes = survivors(played) or played
    steps = [step for episode in episodes for step in episode.steps]
    return {
        "reward": float(np.mean([episode.reward for episode in episodes])),
        "success": float(np.mean([episode.verdict == CORRECT for episode in episodes])),
        **{f"{PART}{name}": mean for name, mean in mean_metrics(episode.metrics for episode in episodes).items()},
        "episodes": len(episodes),
        "groups_sampled": len({episode.play.group for episode in played}),
        "groups_kept": sum(group.has_signal for group in groups),
        "response_length": float(np.mean([len(step.token_ids) for step in steps])),
        "truncated": float(np.mean([bool(step.truncated) for step in steps])),
        "episode_steps": len(steps) / len(episodes),
        "valid_actions": float(np.mean([step.valid for step in steps])),
        "corrected_actions": float(np.mean([step.corrected for step in steps])),
        "overlong": float(np.mean([episode.overlong for episode in episodes])),
        "tokens": sum(len(step.token_ids) for step in steps),
        "dropped": len(played) - len(survivors(played)),
    }


def assert_untouched(base: Base, trained: TrainedSet, parts: Mapping[str, str]) -> None:
    """Hash all that is outside the trained set again. parts: `part_hashes` before the training.

    Raises RuntimeError if anything has changed: the run is void.
    """
    before = {name: digest for name, digest in base.hashes.items() if name not in trained.parameters} | dict(parts)
    now = weight_hashes(base.model, before.keys() - parts.keys()) | part_hashes(trained)
    if changed := sorted(name for name in before if now[name] != before[name]):
        raise RuntimeError(f"training {trained.spec} changed {len(changed)} weights outside it, first {changed[0]}")
