"""`onelayer eval`"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .arguments import AsJson, Gpus, Memory, Overrides, Parallel, Quiet, RayAddress, Threads, placement, print_json

if TYPE_CHECKING:
    from ..agents.agent import Player
    from ..envs.items import Split
    from ..evals.records import Evaluation, PolicyInfo
    from ..trainers.config import Config

    Cast = Callable[[Config, str, Split], tuple[Player, PolicyInfo]]
    """Who plays one suite: from its configuration, the name of its split and the items."""


def evaluate(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Option(
            help="items to play: NAME or NAME/SPLIT; a suite, a .jsonl file, hub:OWNER/NAME, the id of an environment, lm-eval:TASK; "
            "several with commas, or the name of a file in configs/suites"
        ),
    ] = None,
    overrides: Overrides = None,
    model: Annotated[
        str, typer.Option(help="the base: tiny, tiny-alfworld, a directory or a hub name; or the model's name at an endpoint")
    ] = "tiny",
    patch: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="patch to apply to the base; may be repeated")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="instead of a model here: a server of OpenAI's chat completions, up to and with /v1")
    ] = None,
    baseline: Annotated[
        Literal["random", "gold"] | None, typer.Option(help="instead of a model: any admissible action, or the environment's own solution")
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="instead of a model: responses made elsewhere, {item: ID, response: TEXT} a line"),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="samples of each item")] = 4,
    temperature: Annotated[float, typer.Option(help="sampling temperature; greedy is always measured too")] = 1.0,
    items: Annotated[int | None, typer.Option(metavar="N", min=2, help="only the first N items")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new directory, or one to go on in  [default: runs/eval-SUITE-WHO-...]")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="BOARD.yaml", help="instead of all these: a leaderboard run, models and their patches on suites, in one file"),
    ] = None,
    parallel: Parallel = None,
    ray: RayAddress = None,
    threads: Threads = None,
    gpus: Gpus = 0,
    memory: Memory = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="with --file: show what is there and what would be evaluated")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure a policy on fixed items: a base, with or without patches, an endpoint, a rule, or a file of responses.

    Every policy plays the same items with the same seeds, sampled and greedy. The directory gets every sample with its episode
    (samples.parquet) and the figures (evaluation.json). The same command continues an evaluation that was interrupted. With --output
    and a larger --n or --items it adds to a complete one; what is there is not played again. A leaderboard run (--file) evaluates
    many policies; --parallel or --ray evaluates several at a time.

    \b
    Examples:
      onelayer eval --suite arithmetic
      onelayer eval --suite arithmetic --patch runs/layer3/patch.safetensors --n 8 --items 200
      onelayer eval --suite alfworld/valid_seen --baseline random env.max_steps=30
      onelayer eval --suite math500,humaneval+ --model Qwen/Qwen3-1.7B-Base agent.max_tokens=2048 model.dtype=bfloat16
      onelayer eval --suite paper-math --endpoint http://localhost:8000/v1 --model NAME agent.max_tokens=2048
      onelayer eval --suite math500 --responses theirs.jsonl
      onelayer eval --file configs/boards/tiny.yaml --output runs/board --parallel 2
    """
    from ..common.console import Console
    from ..common.errors import Interrupted, UserError
    from ..common.progress import say
    from ..evals import suites
    from .config import compose_suite

    if file:
        from .board import evaluate_board

        alone = ("suite", "model", "patch", "endpoint", "baseline", "responses", "n", "temperature", "items")
        if given := [name for name in alone if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"]:
            raise UserError(f"--file names what is evaluated; leave out --{given[0]}, or write it into {file}")
        directory, command = output or Path("runs") / file.stem, ["onelayer", *(context.obj or sys.argv[1:])]
        evaluate_board(file, overrides or [], directory, placement(parallel, ray, threads, gpus, memory), dry_run, as_json, command)
        return
    if suite is None:
        raise UserError("nothing to evaluate on; give --suite NAME, or --file BOARD.yaml with models and suites")
    of_board = {"--parallel": parallel, "--ray": ray, "--threads": threads, "--gpus": gpus, "--memory": memory, "--dry-run": dry_run}
    if unused := next((name for name, value in of_board.items() if value), None):
        raise UserError(f"{unused} is of a leaderboard run; give --file BOARD.yaml, or leave it out")
    others = {"--endpoint": endpoint, "--baseline": baseline, "--responses": responses}
    if len(given := [name for name, value in others.items() if value]) > 1:
        raise UserError(f"{' and '.join(given)} name different policies; give one")
    if given and patch:
        raise UserError(f"{given[0]} plays without a model of ours; leave out --patch")
    selection = suites.select(suite)
    shorthands = {"model.path": model, "eval.n": n, "eval.temperature": temperature, "eval.items": items}
    settings = [*selection.overrides, *(f"{key}={json.dumps(value)}" for key, value in shorthands.items())]
    settings += [f"eval.endpoint.url={json.dumps(endpoint)}"] if endpoint else []
    settings += overrides or []
    several = len(selection.suites) > 1 or bool(selection.groups)
    prepared = {one: compose_suite(one, settings) for one in selection.suites if not one.startswith(suites.LM_EVAL)}
    who = baseline or ("responses" if responses else (patch[0].parent if patch else Path(model)).name)
    inputs = [path for path in (*(patch or []), responses, Path(model)) if path]
    directory = output or default_directory(f"eval-{suites.directory_name(suite)}-{suites.directory_name(who)}", settings, inputs, prepared)
    places = {one: directory / suites.directory_name(one) if several else directory for one in selection.suites}
    check_place(directory, several)
    if directory.exists():
        say(f"going on in {directory}")
    say(f"looking for the items of {', '.join(selection.suites)}")
    check_items(prepared, [one.removeprefix(suites.LM_EVAL) for one in selection.suites if one.startswith(suites.LM_EVAL)])

    from ..pages.report import render_evaluation

    cast: Cast | None = None
    found: dict[str, Evaluation] = {}
    console = Console(quiet=as_json)
    try:
        for one, place in places.items():
            if several:
                console.print(one, style="bold", markup=False, emoji=False)
            if one.startswith(suites.LM_EVAL):
                found[one] = harness(one, settings, patch or [], place)
            else:
                config, split_name = prepared[one]
                cast = cast or policies(config, patch or [], baseline, responses)
                found[one] = play(cast, config, split_name, place, responses)
            console.print(render_evaluation(found[one]))
    except KeyboardInterrupt:
        command = ["onelayer", *(context.obj or sys.argv[1:]), *([] if output else ["--output", directory])]
        raise Interrupted(signal.SIGINT, f"what was played is kept in {directory}", command) from None
    result = suites.write_suites(directory, found, selection) if several else None
    if as_json:
        print_json({"directory": directory, "evaluations": found, "groups": result.groups if result else {}})
        return
    if result and result.groups:
        console.print(suites.table(result))
    print(f"records: {directory}")


def check_items(prepared: dict[str, tuple[Config, str]], tasks: Sequence[str]) -> None:
    """Look for the items of all suites before the first episode. Raises UserError, which names every suite whose items are missing.

    tasks: those of lm-evaluation-harness.
    """
    from ..common.errors import UserError
    from ..envs import load
    from ..evals.evaluator import first_items

    looks: list[Callable[[], object]] = [
        lambda config=config, split=split: first_items(load(config.env, split), config.eval.items) for config, split in prepared.values()
    ]
    if tasks:
        from ..evals.harness import look_for

        looks += [partial(look_for, task) for task in tasks]
    problems: list[str] = []
    for look in looks:
        try:
            look()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems) if len(problems) == 1 else f"{len(problems)} of {len(looks)} suites: {'; '.join(problems)}")


def default_directory(stem: str, settings: Sequence[str], inputs: Sequence[Path], prepared: dict[str, tuple[Config, str]]) -> Path:
    """Where an evaluation goes that names no --output: the directory that the same command has begun and not finished, else a new one.

    inputs: files and directories that it depends on; others than before, as their sizes and times tell, are another evaluation.
    """
    from ..evals.protocol import fingerprint
    from ..evals.records import MANIFEST
    from ..evals.suites import SUITES

    files = [file for path in inputs for file in (sorted(path.glob("*")) if path.is_dir() else [path]) if file.is_file()]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    configs = [(suite, split, config.model_dump_json()) for suite, (config, split) in prepared.items()]
    stem = f"{stem}-{fingerprint(settings, stamps, configs)[:6]}"
    names = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
    directories = (Path("runs", name) for name in names)
    return next(directory for directory in directories if not (directory / MANIFEST).exists() and not (directory / SUITES).exists())


def check_place(directory: Path, several: bool) -> None:
    """Raises UserError where the directory holds something that this command cannot go on with."""
    from ..common.errors import UserError
    from ..evals.journal import JOURNAL
    from ..evals.records import MANIFEST
    from ..evals.samples import SAMPLES
    from ..evals.suites import SUITES

    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: a file; name a new directory")
    inside = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    ours = {MANIFEST, JOURNAL, SAMPLES} if not several else {SUITES} | {path.parent.name for path in directory.glob(f"*/{JOURNAL}")}
    ours |= {path.parent.name for path in directory.glob(f"*/{MANIFEST}")} if several else set()
    if inside and not inside & ours:
        raise UserError(f"{directory}: not empty, and not begun by this command; name a new directory")


def play(cast: Cast, config: Config, split_name: str, directory: Path, responses: Path | None):
    """Evaluate on one suite."""
    from ..envs import load
    from ..envs.pool import open_pool
    from ..evals.evaluator import evaluate, first_items
    from ..trainers.manifest import recipe_of

    config, split = config.evaluated, load(config.env, split_name)
    agent, policy = cast(config, split_name, first_items(split, config.eval.items))
    config = config.model_copy(update={"agent": config.agent.model_copy(update={"max_tokens": agent.config.max_tokens})})
    samples = None
    if responses:
        from ..evals.responses import read_responses

        samples = read_responses(responses).samples
    with open_pool(config.env, split_name, config.pool) as pool:
        recipe = recipe_of(config, config.env, config.eval)
        return evaluate(agent, pool, split, config.eval, directory, policy=policy, recipe=recipe, samples=samples)


def policies(config: Config, patches: list[Path], baseline: str | None, responses: Path | None) -> Cast:
    """Who plays; a model is loaded once for all suites."""
    from ..evals.records import PolicyInfo

    if responses:
        from ..evals.responses import read_responses

        answers = read_responses(responses)
        return lambda config, split_name, split: (answers.agent(split, config.eval.seed), answers.policy())
    if baseline:
        from ..agents.baselines import BASELINES

        return lambda config, split_name, split: (BASELINES[baseline](config.env, split_name), PolicyInfo.baseline(baseline))
    if config.eval.endpoint:
        return _endpoint
    from ..agents.agent import make_agent
    from ..agents.patch import apply
    from ..agents.policy import load_base
    from ..common.progress import say
    from ..evals.model_policy import model_policy
    from ..studies.board import read_patch

    say(f"loading the base {config.model.path}")
    base = load_base(config.model)
    read = [read_patch(path) for path in patches]
    known = model_policy(base, config.model.path, [patch for patch, _ in read], [trained for _, trained in read])
    apply(base, [patch for patch, _ in read])
    return lambda config, split_name, split: (make_agent(base, config.agent, config.env), known)


def _endpoint(config: Config, split_name: str, split: Split) -> tuple[Player, PolicyInfo]:
    from ..agents.agent import endpoint_agent
    from ..evals.records import PolicyInfo

    assert config.eval.endpoint
    place, model = config.eval.endpoint, config.model.path
    return endpoint_agent(place, model, config.agent, config.env), PolicyInfo.endpoint(place, model)


def harness(suite: str, overrides: list[str], patches: list[Path], directory: Path):
    """Evaluate on a task of lm-evaluation-harness."""
    from ..evals.harness import evaluate
    from ..evals.suites import LM_EVAL
    from ..studies.board import read_patch
    from ..trainers.manifest import recipe_of
    from .config import compose

    config = compose(overrides)
    return evaluate(
        suite.removeprefix(LM_EVAL),
        config.model,
        config.eval,
        [read_patch(path) for path in patches],
        directory,
        recipe=recipe_of(config, config.env, config.eval),
    )
