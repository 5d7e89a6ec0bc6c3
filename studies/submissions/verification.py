"""Whether an evaluation is what it says: every hash and count, every response graded again, and items made again from base, patch and seed.

What the records must be follows from the manifest alone: items, order and seeds are planned again (recorded.py), and the protocol is the
hash of a configuration that is at hand. replay.py plays them. docs/submissions.md says what that proves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...agents import tiny
from ...agents.agent import Agent, Player, endpoint_agent, make_agent
from ...agents.baselines import BASELINES
from ...agents.config import PLAIN, SERVER, AgentConfig, ModelConfig, engine_row
from ...agents.length import TOKENLESS
from ...agents.openai_engine import TextTokenizer
from ...agents.patch import Patch, applied, check_set, read, read_header
from ...agents.policy import Base
from ...agents.trained_sets import select
from ...agents.trained_sets.changes import by_weight
from ...common.errors import UserError, first_problem
from ...common.files import write_atomically
from ...common.reading import parse_json, read_bytes
from ...envs import load, parse_suite
from ...envs.config import BUILT_IN, EnvConfig, OtherConfig, PoolConfig
from ...envs.items import Split
from ...envs.pool import open_pool
from ...evals.config import EvalConfig
from ...evals.evaluator import domain, first_items, protocol_of, tokenizer_of
from ...evals.model_policy import model_policy
from ...evals.records import LARGEST_MANIFEST, MANIFEST, Decoding, Evaluation, PolicyInfo, Source, Trained
from ...evals.responses import ResponsesEngine
from ...evals.samples import SAMPLES
from ...trainers.manifest import complete_manifest, training_of
from ..leaderboard.marks import VERIFIED, Mark, Verified, mark_of, sha256
from ..store import PATCH, RUN, SUBMISSION, submission_of
from .archive import Claim, Submission, gather
from .recorded import RecordedSample, Records
from .refusal import Reason, Refused
from .replay import ReplayableEvaluation

"""Suites whose items are made here."""
FOREIGN_ITEMS = 1 << 14  # of a generated suite, where the evaluation was made elsewhere
FOREIGN_TURNS = 1000  # that an episode may take, where the evaluation was made elsewhere


@dataclass(frozen=True)
class Tools:
    """What verification needs from outside."""

    load_base: Callable[[ModelConfig], Base]
    foreign: bool = False
    """It was made elsewhere: nothing that its configuration names is imported, loaded or asked, but for what is named here."""
    model: str | None = None
    """The base, instead of the path that the configuration names."""
    environment: str | None = None
    """An environment besides the built-in ones that may be imported."""
    suite: str | None = None
    """A file or data set besides the built-in suites that may be read."""
    chat_template: str | None = None
    """A chat template besides the base's own, which is a program, that may be rendered."""


@dataclass(frozen=True)
class Checked:
    """What verification of one evaluation came to."""

    claim: Claim
    graded: int
    lost: int
    regenerated: int

    @property
    def mark(self) -> Literal[Mark.REGENERATED, Mark.CHECKED]:
        return Mark.REGENERATED if self.regenerated and not self.lost else Mark.CHECKED


class _Recipe(BaseModel):
    """The configuration in a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    env: EnvConfig
    agent: AgentConfig
    pool: PoolConfig
    eval: EvalConfig


def check_files(directory: Path, submission: Submission) -> list[Claim]:
    """The evaluations of an unpacked submission. Raises Refused where its files are not those that it lists, a manifest cannot be read, a
    patch is not there, or a file belongs to none of the evaluations."""
    there = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()} - {SUBMISSION}
    there = {name for name in there if not name.endswith(f"/{VERIFIED}")}
    if odd := sorted(there ^ submission.files.keys()):
        what = "listed, but not there" if odd[0] in submission.files else "there, but not listed"
        raise Refused(odd[0], Reason.HASH, what)
    for name, filed in submission.files.items():
        if sha256(directory / name) != filed.sha256:
            raise Refused(name, Reason.HASH, f"its SHA-256 is not {filed.sha256[:12]}..., which {SUBMISSION} lists")
    try:
        claims = gather([directory])
    except UserError as error:
        raise Refused(SUBMISSION, Reason.BROKEN, str(error)) from error
    used = {f"{claim.directory.name}/{name}" for claim in claims for name in (MANIFEST, SAMPLES)}
    used |= {f"{path.parent.name}/{name}" for claim in claims for path in claim.patches for name in (PATCH, RUN)}
    if unused := sorted(submission.files.keys() - used):
        raise Refused(unused[0], Reason.UNUSED, "leave it out, or pack the evaluation that it belongs to")
    return claims


def verify(claim: Claim, tools: Tools, regenerate: int = 0, seed: int = 0) -> Checked:
    """Check one evaluation, and make `regenerate` samples of each decoding again, drawn with `seed`, and those that were lost; none of a
    policy that has no weights here.

    Raises Refused with the first thing that is wrong; UserError where base or data are not here.
    """
    tools = replace(tools, foreign=tools.foreign or submission_of(claim.directory) is not None)
    try:
        with _opened(claim, tools) as subject:
            found = subject.records.outcomes()
            lost = [number for number, one in enumerate(found) if one.error is not None]
            subject.grade()
            chosen = _draw(found, regenerate, seed) if subject.base else []
            if chosen:
                subject.regenerate(subject.records.at(chosen))
            if lost and (chosen or (subject.plays_alone and not subject.base)):
                subject.play_lost(subject.records.at(lost))
    except (ValidationError, RecursionError) as error:
        told = first_problem(error) if isinstance(error, ValidationError) else "nested too deeply"
        raise Refused(claim.directory.name, Reason.BROKEN, told) from error
    return Checked(claim, len(found) - len(lost), len(lost), len(chosen))


def _draw(found: Sequence[RecordedSample], count: int, seed: int) -> list[int]:
    """Numbers of samples to be made again, `count` of each decoding: among many sampled ones a greedy one would hardly ever be drawn."""
    draw, chosen = random.Random(seed), list[int]()
    for decoding in Decoding:
        due = [number for number, one in enumerate(found) if one.decoding == decoding and one.error is None]
        chosen += draw.sample(due, min(count, len(due)))
    return chosen


def write_mark(checked: Checked) -> None:
    """Leave verified.json beside the evaluation; a stronger one for the same files stays."""
    directory = checked.claim.directory
    if checked.mark is Mark.CHECKED and mark_of(directory) is Mark.REGENERATED:
        return
    told = Verified(
        mark=checked.mark,
        evaluation_sha256=sha256(directory / MANIFEST),
        samples_sha256=sha256(directory / SAMPLES),
        graded=checked.graded,
        lost=checked.lost,
        regenerated=checked.regenerated,
        onelayer=version("onelayer"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_atomically(directory / VERIFIED, told.model_dump_json(indent=2) + "\n")


@contextmanager
def _opened(claim: Claim, tools: Tools) -> Iterator[ReplayableEvaluation]:
    """The evaluation with everything that it takes to play it, its policy's weights applied; all but the records is checked."""
    place, manifest = claim.directory.name, claim.manifest
    if sha256(claim.directory / SAMPLES) != manifest.samples_sha256:
        raise Refused(place, Reason.HASH, f"{SAMPLES} is not the file that {MANIFEST} names")
    if manifest.source is Source.LM_EVAL:
        raise Refused(place, Reason.UNVERIFIABLE, "it was graded by lm-evaluation-harness; run the task again instead")
    recipe = _Recipe.model_validate(manifest.config)
    if tools.foreign:
        recipe = _check_trust(place, manifest, recipe, tools)
    split = _check_items(place, manifest, recipe)
    base = _base(recipe, tools) if manifest.source is Source.MODEL else None
    patches = _check_patches(claim, base, tools)
    player, policy = _player(manifest, recipe, base, patches)
    _check_protocol(place, manifest, recipe, player, policy)
    records = Records(claim, split, recipe.eval, tools.foreign)
    # Their pool is not taken over: how long a step may take, and in how much memory, is for this machine to say.
    with open_pool(recipe.env, _split_name(manifest), PoolConfig()) as pool, applied(base, patches) if base else nullcontext():
        player.engine.load(dict(base.model.named_parameters()) if base else {})
        yield ReplayableEvaluation(records, player, pool, base)


def _check_trust(place: str, manifest: Evaluation, recipe: _Recipe, tools: Tools) -> _Recipe:
    """What was made elsewhere may name code, files, data sets, weights and servers: none is touched unless it is named here. It may name
    sizes, too: they are limits, not orders. Returns the recipe as far as it is followed here."""

    def refuse(detail: str) -> Refused:
        return Refused(place, Reason.UNVERIFIABLE, detail)

    env, agent = recipe.env, recipe.agent
    if isinstance(env, OtherConfig):
        if env.id != tools.environment:
            there = ", ".join(BUILT_IN)
            raise refuse(f"its environment is {env.id}, none of {there}; if you trust that module, give --environment with it")
    elif not env.has_fixed_source and env.suite != tools.suite:
        raise refuse(f"its suite is {env.suite}, none that is built in; if you trust that file or data set, give --suite with it")
    elif (turns := env.turns) > FOREIGN_TURNS:
        raise refuse(f"its episodes take up to {turns} turns, more than the {FOREIGN_TURNS} that are played")
    elif env.suite == env.GENERATED:
        if manifest.items > FOREIGN_ITEMS:
            raise refuse(f"{manifest.items} items, more than the {FOREIGN_ITEMS} of a generated suite that are made")
        if env.size and env.size > manifest.items:  # the first ones are the same
            env = env.model_copy(update={"size": manifest.items})
    if recipe.model.path not in tiny.PATHS and tools.model is None:
        raise refuse(f"its base is {recipe.model.path}; give --model with a directory or hub name of it")
    if engine_row(agent.engine) in (None, SERVER):
        raise refuse(f"its engine is {agent.engine}, code or a server of somebody else")
    if agent.chat_template not in (None, PLAIN) and agent.chat_template.removesuffix("\n") != tools.chat_template:
        raise refuse("it has a chat template of its own, a program; if you trust it, give --chat-template with a file that holds it")
    here = {name: AgentConfig.model_fields[name].default for name in ("max_batch", "kv_cache_gib")}
    model = recipe.model.model_copy(update={"device": "auto", "trust_remote_code": False})
    return recipe.model_copy(update={"env": env, "model": model, "agent": agent.model_copy(update=here)})


def _check_items(place: str, manifest: Evaluation, recipe: _Recipe) -> Split:
    there = load(recipe.env, _split_name(manifest))
    if there.name != manifest.split:
        raise Refused(place, Reason.CONFIGURATION, f"the split is called {manifest.split}, and its configuration loads {there.name}")
    if manifest.items > len(there.items):
        raise Refused(place, Reason.ITEMS, f"{manifest.items} items, and {manifest.split} has {len(there.items)}")
    split = first_items(there, manifest.items)
    if split.digest != manifest.digest:
        raise Refused(place, Reason.ITEMS, f"the first {manifest.items} of {manifest.split} have another SHA-256")
    if manifest.skipped.keys() != {one.id for one in split.skipped}:
        raise Refused(place, Reason.ITEMS, f"it tells of {len(manifest.skipped)} that cannot be graded, and {len(split.skipped)} are there")
    named = _Recipe.model_validate(manifest.config).env  # as they wrote it
    if recipe.eval.suite is not None and parse_suite(recipe.eval.suite, named) != (named, _split_name(manifest)):
        raise Refused(place, Reason.CONFIGURATION, f"eval.suite is {recipe.eval.suite}, and it was measured on {manifest.split}")
    size = getattr(named, "size", None)
    if manifest.items != (wanted := recipe.eval.items or size or len(there.items)):
        raise Refused(place, Reason.CONFIGURATION, f"{manifest.items} items, and its configuration asks for {wanted}")
    return split


def _split_name(manifest: Evaluation) -> str:
    return manifest.split.rpartition("/")[2]


def _base(recipe: _Recipe, tools: Tools) -> Base:
    return tools.load_base(recipe.model if tools.model is None else recipe.model.model_copy(update={"path": tools.model}))


def _check_patches(claim: Claim, base: Base | None, tools: Tools) -> list[Patch]:
    place, manifest = claim.directory.name, claim.manifest
    if base is None and (manifest.patches or manifest.base != "none"):
        raise Refused(place, Reason.CONFIGURATION, f"a policy of source {manifest.source} has neither base nor patches")
    if base and base.fingerprint != manifest.base:
        raise Refused(place, Reason.BASE, f"it names {manifest.base[:12]}..., and the base here is {base.fingerprint[:12]}...")
    if len(manifest.trained) != len(manifest.patches):
        raise Refused(place, Reason.TRAINING, f"{len(manifest.patches)} patches, and {len(manifest.trained)} entries of their training")
    found: dict[str, Patch] = {}
    for path, told, named in zip(claim.patches, manifest.trained, manifest.patches, strict=True):
        assert base
        try:
            patch = _read_patch(place, path, base, {name for other in found.values() for name in by_weight(other.weights)})
        except Refused:
            raise
        except UserError as error:
            raise Refused(place, Reason.PATCH, str(error)) from error
        if patch.sha256 != named:
            raise Refused(place, Reason.HASH, f"{PATCH} is not the file that {MANIFEST} names")
        _check_training(place, patch, path.parent, told, base, tools)
        found[named] = patch
    return list(found.values())


def _read_patch(place: str, path: Path, base: Base, changed: set[str]) -> Patch:
    """A patch, which is read when its header says that it has the weights of the trained set that it names, and none of those that others
    have `changed`. Raises Refused; UserError where it cannot be read."""
    header = read_header(path)
    if header.base != base.fingerprint:
        raise Refused(place, Reason.BASE, f"the patch {header.trained_set} belongs to {header.base[:12]}...")
    check_set(base, header.trained_set, header.shapes)
    if twice := sorted(changed & by_weight(header.shapes).keys()):
        raise Refused(place, Reason.PATCH, f"two patches change {twice[0]}")
    patch = read(path)
    check_set(base, patch.trained_set, header.shapes, patch.weights)
    return patch


def _check_training(place: str, patch: Patch, run: Path, told: Trained | None, base: Base, tools: Tools) -> None:
    """What an evaluation tells of a patch's training is what the run's manifest tells, and as much of it as can be seen is true."""
    if not (run / RUN).is_file():
        if told is not None:
            raise Refused(place, Reason.TRAINING, f"it tells of a training, and there is no {RUN} beside the patch")
        return
    try:
        known = training_of(complete_manifest(run))
        manifest = parse_json(read_bytes(run / RUN, LARGEST_MANIFEST))
    except ValueError as error:
        raise Refused(place, Reason.TRAINING, str(error)) from error
    if (manifest["base"], manifest["patch_sha256"]) != (base.fingerprint, patch.sha256):
        raise Refused(place, Reason.TRAINING, f"{RUN} is of another base or patch")
    if told is not None and known != told:
        differ = [name for name in Trained.model_fields if getattr(known, name) != getattr(told, name)]
        raise Refused(place, Reason.TRAINING, f"{RUN} and {MANIFEST} differ in {', '.join(differ)}")
    trained = select(base.model, patch.trained_set)
    sizes = trained.count, trained.total
    if (known.trained_set, known.parameters, known.total_parameters) != (patch.trained_set, *sizes):
        raise Refused(place, Reason.TRAINING, f"{RUN} tells {known.trained_set}, {known.parameters} of {known.total_parameters} parameters")


def _player(manifest: Evaluation, recipe: _Recipe, base: Base | None, patches: Sequence[Patch]) -> tuple[Player, PolicyInfo]:
    """Who played, and as whom it was fingerprinted."""
    name, model = manifest.policy, recipe.model.path
    if base:
        return make_agent(base, recipe.agent, recipe.env), model_policy(base, manifest.model, patches, manifest.trained)
    if manifest.source is Source.BASELINE and name in BASELINES:
        player = BASELINES[name](recipe.env, _split_name(manifest))
        return player, PolicyInfo.baseline(name)
    if manifest.source is Source.ENDPOINT and (endpoint := recipe.eval.endpoint):
        quiet = endpoint.model_copy(update={"key_variable": None})  # nothing is sent
        return endpoint_agent(quiet, model, recipe.agent, recipe.env), PolicyInfo.endpoint(endpoint, model)
    if manifest.source is Source.RESPONSES:
        policy = PolicyInfo(name=name, source=Source.RESPONSES, model=manifest.model, base="none", repeats=manifest.repeats)
        return Agent(ResponsesEngine({}), TextTokenizer(), TOKENLESS, "{observation}", 0), policy  # type: ignore[arg-type]
    raise Refused("policy", Reason.CONFIGURATION, f"there is no {manifest.source} called {name}")


def _check_protocol(place: str, manifest: Evaluation, recipe: _Recipe, player: Player, policy: PolicyInfo) -> None:
    """The manifest says what its configuration says, and the protocol, on which the keys rest, is the hash of it."""
    config = manifest.config
    expected = {
        "policy": policy.name,
        "model": policy.model,
        "domain": domain(config),
        "temperature": recipe.eval.temperature,
        "seed": recipe.eval.seed,
        "max_tokens": player.config.reply_length,
        "prompt": player.prompt,
        "repeats": policy.repeats,
        "elsewhere": policy.elsewhere,
    }
    if manifest.layers is not None:  # evaluations of earlier versions do not tell
        expected["layers"] = policy.layers
    if policy.source is Source.MODEL:
        expected["model"] = recipe.model.path
    if policy.source is not Source.RESPONSES:  # whose file, which is in its protocol, is not here
        expected["protocol"] = protocol_of(player, manifest.split, policy, config)
    if manifest.tokenizer:  # evaluations of earlier versions do not tell
        expected["tokenizer"] = tokenizer_of(player)
    for name, value in expected.items():
        if getattr(manifest, name) != value:
            found = getattr(manifest, name)
            raise Refused(place, Reason.CONFIGURATION, f"{name} is {str(found)[:60]!r}, and from the configuration {str(value)[:60]!r}")
