"""Directories of runs with known outcomes, made without a model: evaluations in the store's own format, and the runs they come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.common.cost import Cost, Hardware
from onelayer.evals.evaluator import summarise
from onelayer.evals.records import MANIFEST, Decoding, Evaluation, Trained
from onelayer.evals.samples import SAMPLES, Sample, write_samples
from onelayer.trainers.config import Config
from onelayer.trainers.manifest import Manifest, RecordedConfig

BASE = "f" * 64
ITEMS, SAMPLES_EACH = 160, 4


def outcomes(rate: float, seed: int, items: int = ITEMS, samples: int = SAMPLES_EACH) -> np.ndarray:
    """0 or 1 for each item and sample, (I, S + 1), the last one greedy; some items are harder for everybody."""
    easy_I = np.random.default_rng(7).normal(size=items)
    p_I = 1 / (1 + np.exp(-(1.3 * np.log(rate / (1 - rate)) + easy_I)))
    return (np.random.default_rng(seed).random((items, samples + 1)) < p_I[:, None]).astype(float)


STEP = {"observation": "", "prompt": "", "response": "", "action": "", "reward": 0.0, "truncated": False, "token_ids": None}


def make_samples(correct_IS: np.ndarray, **fields: Any) -> list[Sample]:
    """Records; the last column is greedy."""
    count = correct_IS.shape[1] - 1
    rows = []
    for decoding in Decoding:
        for item, row in enumerate(correct_IS):
            for sample in range(count) if decoding is Decoding.SAMPLED else (0,):
                right = row[sample if decoding is Decoding.SAMPLED else count]
                values: dict[str, Any] = {
                    "key": f"{decoding}/{item}/{sample}",
                    "decoding": decoding.value,
                    "item": f"item-{item}",
                    "type": None,
                    "sample": sample,
                    "seed": item * 1000 + sample,
                    "env_seed": item,
                    "verdict": "correct" if right else "wrong",
                    "reward": float(right),
                    "answer": None,
                    "tokens": 20 + item % 3,
                    "truncated": False,
                    "error": None,
                    "ending": "",
                    "steps": [STEP | {"valid": item % 4 > 0}],
                }
                rows.append(Sample(**values | fields))
    return rows


def make_evaluation(
    directory: Path, correct_IS: np.ndarray, *, policy: str = "base", trained: Trained | None = None, **fields: Any
) -> Path:
    """An evaluation that is complete. fields: of its manifest."""
    samples = make_samples(correct_IS)
    data = write_samples(directory / SAMPLES, samples)
    scores = {decoding.value: summarise([one for one in samples if one.decoding == decoding]) for decoding in Decoding}
    values: dict[str, Any] = {
        "policy": policy,
        "model": "tiny",
        "base": BASE,
        "layers": 6,
        "patches": [],
        "trained": [] if trained is None else [trained],
        "domain": "math",
        "split": "arithmetic/test",
        "digest": "d" * 64,
        "items": len(correct_IS),
        "temperature": 1.0,
        "max_tokens": 40,
        "prompt": "{observation}",
        "seed": 0,
        "protocol": "p" * 64,
        "config": evaluated_as(Config()),
        "samples_sha256": hashlib.sha256(data).hexdigest(),
        "cost": Cost(seconds=2.0, tokens=100),
        "hardware": Hardware(cpu="any", cores=1, threads=1, gpu=None),
        "versions": {},
        "git_commit": None,
        "finished": "2026-11-21T00:00:00+00:00",
        **scores,
    }
    (directory / MANIFEST).write_text(Evaluation(**values | fields).model_dump_json())
    return directory


def evaluated_as(recipe: Config) -> dict[str, Any]:
    """The configuration that an evaluation under a recipe records."""
    return recipe.model_dump(mode="json", include={"model", "env", "agent", "pool", "eval"})


def rewrite(directory: Path, samples: list[Sample]) -> None:
    """Other records in an evaluation, which its manifest names."""
    data = write_samples(directory / SAMPLES, samples)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    (directory / MANIFEST).write_text(json.dumps(manifest | {"samples_sha256": hashlib.sha256(data).hexdigest()}))


def make_run(
    directory: Path,
    rate: float,
    *,
    trained_set: str = "layer:3",
    seed: int = 0,
    config: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """A training run with an evaluation in `test`. config, env: keys of its trainer and of both environments that differ. fields: of the
    evaluation's manifest."""
    settings = {"trained_set": trained_set, "seed": seed, "lr": 3e-4} | (config or {})
    recipe = Config.model_validate({"name": "made", "trainer": settings, "env": env or {}})
    parameters = 1_900_000 if trained_set == "full" else 250_000
    trained = Trained(
        algorithm=recipe.trainer.algorithm.name,
        trained_set=trained_set,
        seed=seed,
        lr=recipe.trainer.lr,
        parameters=parameters,
        total_parameters=1_900_000,
        recipe="made",
        split="arithmetic/train",
        split_digest="e" * 64,
        cost=Cost(seconds=90.0 + seed, cpu_seconds=100.0, peak_memory=3 * 2**29, tokens=200_000, flops=3.4e12),
    )
    directory.mkdir(parents=True)
    weights = recipe.model_dump_json().encode()
    (directory / "patch.safetensors").write_bytes(weights)
    patch = hashlib.sha256(weights).hexdigest()
    manifest = Manifest(
        config=RecordedConfig.model_validate(recipe.model_dump(mode="json")),
        base=BASE,
        trained_set=trained_set,
        trained_parameters=parameters,
        total_parameters=trained.total_parameters,
        split=trained.split,
        split_digest=trained.split_digest,
        patch_sha256=patch,
        cost=trained.cost,
        hardware=Hardware(cpu="any", cores=1, threads=1, gpu=None),
        versions={},
        git_commit=None,
        finished="2026-01-01T00:00:00+00:00",
    )
    (directory / "run.json").write_text(manifest.model_dump_json())
    drawn_with = int(hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8], 16)  # whatever keys a recipe gains
    correct_IS = outcomes(rate, drawn_with)
    make_evaluation(
        directory / "test", correct_IS, policy=trained_set, trained=trained, **{"patches": [patch], "config": evaluated_as(recipe)} | fields
    )
    return directory


def make_runs(root: Path) -> Path:
    """A base, a full-parameter run and two layers, three seeds each, on one suite; the base on another; a policy without a model."""
    make_evaluation(root / "base", outcomes(0.3, 1))
    for seed in range(3):
        make_run(root / f"full-{seed}", 0.6, trained_set="full", seed=seed)
        make_run(root / f"layer-3-{seed}", 0.58, seed=seed)
        make_run(root / f"layer-0-{seed}", 0.4, trained_set="layer:0", seed=seed)
    make_run(root / "gigpo", 0.5, config={"algorithm": "gigpo"})
    make_evaluation(root / "random", outcomes(0.1, 2), policy="random", base="none", source="baseline", model="")
    make_evaluation(root / "math500", outcomes(0.55, 3), split="math500/test", digest="5" * 64)
    return root
