"""A directory of runs to look at: layers of a made model, two algorithms, runs that train, and texts that a page must not obey."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from made_runs import make_evaluation, make_run, outcomes, rewrite

from onelayer.common.cost import Cost
from onelayer.evals.journal import JOURNAL, Spent
from onelayer.evals.samples import SAMPLES, Sample, read_samples, training_schema, write_rows
from onelayer.trainers.config import Config, dump

HOSTILE = [
    "<script>document.title = 'owned'; window.owned = 1</script>",
    "<img src=x onerror=\"window.owned = 1\"><svg onload='window.owned = 1'><style>body { display: none }</style>",
    "</div></main></body></html><h1>owned</h1>",
    "# owned\n**bold** [link](javascript:window.owned=1)",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\x1b[31mred\x1b]0;owned\x07 \u202eDLROW\u202c \x00 \U000e0041",
]
RATES = {0: 0.36, 1: 0.44, 2: 0.57, 3: 0.60, 4: 0.47, 5: 0.33}


def step(number: int, response: str, observation: str = "What is 3 + 4?", advantage: float | None = None) -> dict[str, Any]:
    """A step of an episode."""
    texts = {
        "observation": observation,
        "prompt": f"<|im_start|>user\n{observation}<|im_end|>\n<|im_start|>assistant\n",
        "response": response,
    }
    rest = {
        "action": response[-20:],
        "reward": float(number),
        "truncated": False,
        "valid": True,
        "token_ids": [1, 2],
        "advantage": advantage,
    }
    return texts | rest


def sample(item: str, number: int, response: str, verdict: str = "wrong", steps: int = 1, decoding: str = "sampled") -> Sample:
    """An episode of an evaluation."""
    return Sample(
        key=f"{decoding}/{item}/{number}",
        decoding=decoding,
        item=item,
        type=None,
        sample=number,
        seed=number,
        env_seed=0,
        verdict=verdict,
        reward=float(verdict == "correct"),
        answer=response[-5:],
        tokens=2 * steps,
        truncated=False,
        error=None,
        ending="the end: " + response[:30],
        steps=[step(turn, f"{response} (turn {turn})" if steps > 1 else response) for turn in range(steps)],  # pyright: ignore[reportArgumentType]
    )


def with_texts(directory: Path) -> Path:
    """The episodes of a made evaluation, said in words."""
    found = []
    for at, one in enumerate(read_samples(directory / SAMPLES)):
        text = f"Three and four are {7 if one.correct else 8}. So it is #{at}.\n#### {7 if one.correct else 8}"
        steps = [step(int(one.reward), text, f"What is {3 + at} + 4?")]
        found.append(Sample.model_validate(one.model_dump() | {"steps": steps, "answer": text[-1]}))
    rewrite(directory, found)
    return directory


def hostile(directory: Path) -> Path:
    """An evaluation whose every text tries to be more than text, item ids and verdicts included."""
    make_evaluation(directory, np.zeros((len(HOSTILE), 2)), policy=HOSTILE[0], split="hostile/<b>test</b>", digest="6" * 64)
    rows = [
        sample(f"item {at} {text}", 0, text, verdict=text if at == 0 else "wrong", decoding=decoding)
        for decoding in ("sampled", "greedy")
        for at, text in enumerate(HOSTILE)
    ]
    rewrite(directory, rows)
    return directory


def metrics(run: Path, steps: int, level: float = 0.7) -> None:
    """A learning curve of so many steps."""
    lines = []
    for at in range(steps):
        success = 0.3 + (level - 0.3) * (1 - math.exp(-at / 8)) + 0.03 * math.sin(7 * at + 10 * level)
        line = {"step": at, "reward": success, "success": success, "entropy": 1.2 - success, "kl": 0.002 * at, "grad_norm": 1 / (1 + at)}
        lines.append(json.dumps(line | {"response_length": 20 + at, "tokens": 900.0, "rollout_seconds": 0.5, "update_seconds": 0.7}) + "\n")
    (run / "metrics.jsonl").write_text("".join(lines))


def kept_episodes(run: Path, first: int, last: int, turns: int = 1) -> None:
    """What a training run has played in these steps, a group of four a step."""
    rows = []
    for at in range(first, last + 1):
        for number in range(4):
            right = number % 2 == 0
            one = sample(f"train-{at}", number, f"Step {at}, reply {number}", "correct" if right else "wrong", turns)
            row = one.model_dump(exclude={"key", "decoding", "type"}) | {"step": at, "group": 0}
            row |= {"steps": [turn.model_dump() | {"advantage": 1.0 if right else -1.0} for turn in one.steps]}
            rows.append(row)
    write_rows(run / "episodes" / f"{first:06}-{last:06}.parquet", rows, training_schema())


def training(run: Path, steps: int, trained_set: str = "layer:3", of: int = 40) -> Path:
    """A run that is not finished."""
    recipe = Config.model_validate({"name": "made", "trainer": {"trained_set": trained_set, "steps": of, "seed": 0, "lr": 3e-4}})
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(dump(recipe))
    metrics(run, steps)
    return run


def unfinished(directory: Path, samples: int) -> Path:
    """An evaluation that goes on: its journal."""
    directory.mkdir(parents=True)
    spent = Spent(spent=Cost(), requests={}, process=0, policy="layer:3", split="arithmetic/test", wanted=40)
    more(directory, 0, samples, spent.model_dump_json() + "\n")
    return directory


def more(directory: Path, first: int, count: int, head: str = "") -> None:
    """Samples are added to a journal, and the beginning of one more."""
    journal = directory / JOURNAL
    there = journal.read_bytes() if journal.exists() else b""
    lines = [sample(f"item-{at}", 0, f"answer {at}", "correct").model_dump_json() + "\n" for at in range(first, first + count)]
    whole = there[: there.rfind(b"\n") + 1]
    with journal.open("r+b" if there else "wb") as file:
        file.seek(len(whole))
        file.truncate()
        file.write((head + "".join(lines) + '{"key":"half').encode())


def broken(directory: Path) -> Path:
    """An evaluation of which half a manifest is there."""
    directory.mkdir(parents=True)
    (directory / "evaluation.json").write_text('{"schema_version": 3, "pol')
    return directory


def make_viewed(root: Path) -> Path:
    """All of these."""
    with_texts(make_evaluation(root / "base", outcomes(0.3, 1)))
    for algorithm, better in (("grpo", 0.0), ("gigpo", 0.04)):
        config = {"algorithm": algorithm}
        for seed in range(2):
            for name, rate in {"full": 0.62, **{f"layer:{layer}": rate for layer, rate in RATES.items()}}.items():
                run = make_run(
                    root / algorithm / f"{name.replace(':', '-')}-seed-{seed}", rate + better, trained_set=name, seed=seed, config=config
                )
                metrics(run, 40, rate + better)
    with_texts(root / "grpo" / "layer-3-seed-0" / "test")
    kept_episodes(root / "grpo" / "layer-3-seed-0", 0, 19)
    kept_episodes(root / "grpo" / "layer-3-seed-0", 20, 39, turns=3)
    hostile(root / "hostile")
    training(root / "training", 7)
    unfinished(root / "going-on", 12)
    broken(root / "broken")
    return root
