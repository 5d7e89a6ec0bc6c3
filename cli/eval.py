"""`onelayer eval`"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from .arguments import Overrides


def evaluate(
    suite: Annotated[
        str, typer.Option(help="items to play: NAME or NAME/SPLIT; a suite, a .jsonl file, hub:OWNER/NAME or the id of an environment")
    ],
    overrides: Overrides = None,
    model: Annotated[str, typer.Option(help="the base: tiny, a directory or a hub name")] = "tiny",
    patch: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="patch to apply to the base; may be repeated")] = None,
    baseline: Annotated[
        Literal["random", "gold"] | None, typer.Option(help="instead of a model: any admissible action, or the environment's own solution")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="samples of each item")] = 4,
    temperature: Annotated[float, typer.Option(help="sampling temperature; greedy is always measured too")] = 1.0,
    items: Annotated[int | None, typer.Option(metavar="N", min=2, help="only the first N items")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="a new directory  [default: runs/eval-SUITE-TIME]")] = None,
) -> None:
    """Measure a base, with or without patches, on fixed items.

    Every policy plays the same items with the same seeds, sampled and greedy. The directory gets every sample
    (sampled.jsonl, greedy.jsonl) and the figures (evaluation.json).

    \b
    Examples:
      onelayer eval --suite arithmetic
      onelayer eval --suite arithmetic --patch runs/layer3/patch.safetensors --n 8 --items 200
      onelayer eval --suite alfworld/valid_seen --baseline random env.max_steps=30
      onelayer eval --model Qwen/Qwen3-1.7B-Base --suite math500 agent.max_tokens=2048 model.dtype=bfloat16
    """
    from rich.console import Console

    from ..envs import load
    from ..envs.files import check_new
    from ..envs.pool import open_pool
    from .config import compose_suite

    shorthands = {"model.path": model, "eval.n": n, "eval.temperature": temperature, "eval.items": items}
    config, split_name = compose_suite(suite, [f"{key}={json.dumps(value)}" for key, value in shorthands.items()] + (overrides or []))
    env = config.env
    directory = output or Path("runs") / f"eval-{re.sub(r'[^A-Za-z0-9.+-]+', '-', suite)}-{datetime.now():%Y%m%d-%H%M%S}"
    check_new(directory)
    split = load(env, split_name)

    from ..agents.agent import BASELINES, make_agent
    from ..agents.patch import apply, read
    from ..agents.policy import load_base, multiplied
    from ..envs.errors import UserError
    from ..evals.evaluator import evaluate as play_all
    from ..evals.report import render_evaluation

    patches = [read(path) for path in patch or []]
    if baseline:
        if patches:
            raise UserError(f"--baseline {baseline} plays without a model; leave out --patch")
        agent, policy, fingerprint, parameters = BASELINES[baseline](env, split_name), baseline, "none", 0
    else:
        base = load_base(config.model)
        apply(base, patches)
        agent, fingerprint = make_agent(base, config.agent, env), base.fingerprint
        parameters = multiplied(base.model)
        policy = " + ".join(patch.trained_set for patch in patches) or "base"
    with open_pool(env, split_name, config.pool) as pool:
        result = play_all(
            agent,
            pool,
            split,
            config.eval,
            directory,
            policy=policy,
            base=fingerprint,
            patches=[patch.sha256 for patch in patches],
            parameters=parameters,
        )
    Console().print(render_evaluation(result))
    print(f"records: {directory}")
