"""Tasks of lm-evaluation-harness, recorded as any other evaluation: `--suite lm-eval:TASK`, with the extra `onelayer[lm-eval]`.

Its tasks decode as they define it, most of them greedily or by comparing likelihoods, so there is one record for each document and the
other decoding repeats it. The verdict is the task's own: its first metric of right and wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ..agents.config import ModelConfig
from ..agents.patch import Patch, apply
from ..agents.policy import load_base
from ..agents.verdicts import CORRECT, WRONG
from ..common.cost import Meter
from ..common.errors import UserError
from ..common.files import owned
from ..envs.items import Item, Split
from .config import EvalConfig
from .evaluator import env_seed, sample_seed, write_evaluation
from .model_policy import model_policy
from .protocol import fingerprint
from .records import MANIFEST, Decoding, Evaluation, Source, Trained, read_manifest
from .samples import Sample, SampleStep

METRICS = ("acc", "exact_match", "pass@1", "prompt_level_strict_acc", "em")
"""Figures of a document that are 1 where it is right and 0 where it is wrong, the first that there is counts."""


def look_for(task: str) -> None:
    """Find a task and its documents. Raises UserError where the harness is not installed, or has no such task."""
    tasks = _imported(task, "lm_eval.tasks")
    with _refusals(task):
        tasks.TaskManager().load([task])


def evaluate(
    task: str,
    model: ModelConfig,
    config: EvalConfig,
    patches: Sequence[tuple[Patch, Trained | None]],
    directory: Path,
    *,
    recipe: Mapping[str, JsonValue],
) -> Evaluation:
    """Measure a base with patches on one task, a name or a .yaml file that defines one. A complete evaluation of the same is left as it is.

    Raises UserError where the harness is not installed, has no such task, or the task says nothing of right and wrong.
    """
    lm_eval, HFLM = _imported(task, "lm_eval"), _imported(task, "lm_eval.models.huggingface").HFLM
    base = load_base(model)
    known = model_policy(base, model.path, [patch for patch, _ in patches], [trained for _, trained in patches])
    policy = known.model_copy(update={"source": Source.LM_EVAL, "repeats": Decoding.SAMPLED, "parameters": 0})
    protocol = fingerprint(task, version("lm-eval"), policy.base, policy.patches, model.dtype, config.items)
    with owned(directory), Meter() as meter:
        if (directory / MANIFEST).exists():
            if (found := read_manifest(directory)).protocol != protocol:
                raise UserError(f"{directory}: holds another evaluation ({found.policy} on {found.split}); name another --output")
            return found
        apply(base, [patch for patch, _ in patches])
        language_model = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=8)
        with _refusals(task):
            result = lm_eval.simple_evaluate(
                model=language_model,
                tasks=[task],
                limit=config.items,
                log_samples=True,
                random_seed=config.seed,
                bootstrap_iters=0,
            )
        documents = [document for name in sorted(result["samples"]) for document in _first_filter(name, result["samples"][name])]
        split = Split(f"lm-eval:{task}", tuple(_item(name, document) for name, document in documents))
        metric = _metric(task, documents)
        samples = [
            _sample(item, document, metric, decoding, config, protocol)
            for decoding in Decoding
            for item, (_, document) in zip(split.items, documents, strict=True)
        ]
        used: dict[str, JsonValue] = {**recipe, "env": {"id": f"lm-eval:{task}", "metric": metric}}
        return write_evaluation(
            directory,
            samples,
            policy=policy,
            split=split,
            config=config,
            max_tokens=0,
            prompt=f"(lm-eval {version('lm-eval')}: {task})",
            protocol=protocol,
            recipe=used,
            cost=meter.cost(),
        )


def _imported(task: str, module: str) -> Any:
    try:
        found = import_module(module)
    except ImportError as error:
        raise UserError(f"lm-eval:{task}: lm-evaluation-harness cannot be imported ({error}); pip install 'onelayer[lm-eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is loaded already, which is meant
    return found


@contextmanager
def _refusals(task: str) -> Iterator[None]:
    """What the harness raises for a task or documents that it cannot find, as a UserError."""
    try:
        yield
    except (KeyError, ValueError, OSError, ConnectionError) as error:
        raise UserError(f"lm-eval:{task}: the harness cannot run it ({' '.join(str(error).split())[:300]})") from error


def _first_filter(name: str, documents: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """A task may read its answers in several ways and list each document as often: the first way counts."""
    first = documents[0].get("filter") if documents else None
    return [(name, document) for document in documents if document.get("filter") == first]


def _item(name: str, document: Mapping[str, Any]) -> Item:
    content = json.dumps(document["doc"], sort_keys=True, default=str, ensure_ascii=False)
    return Item(f"{name}/{document['doc_id']}", content, str(document.get("target")))


def _metric(task: str, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    if not documents:
        raise UserError(f"lm-eval:{task}: has no documents; name another task")
    for metric in METRICS:
        if all(metric in document for _, document in documents):
            return metric
    raise UserError(f"lm-eval:{task}: none of its figures says right or wrong ({', '.join(METRICS)}); name another task")


def _sample(item: Item, document: Mapping[str, Any], metric: str, decoding: Decoding, config: EvalConfig, protocol: str) -> Sample:
    right, seed = float(document[metric]) >= 1, sample_seed(config.seed, item.id, 0)
    arguments = document["arguments"]
    first = next(iter(arguments.values()))["arg_0"] if isinstance(arguments, dict) else arguments[0][0]
    answer = document["filtered_resps"]
    text = answer[0] if len(answer) == 1 and isinstance(answer[0], str) else json.dumps(answer, default=str, ensure_ascii=False)
    step = SampleStep(
        observation=str(first),
        prompt=str(first),
        response=text,
        action=text,
        reward=float(right),
        truncated=None,
        valid=None,
        corrected=None,
        token_ids=None,
    )
    return Sample(
        key=fingerprint(protocol, decoding, item.id)[:32],
        decoding=decoding.value,
        item=item.id,
        type=None,
        sample=0,
        seed=seed,
        env_seed=env_seed(config.seed, item.id),
        verdict=CORRECT if right else WRONG,
        reward=float(right),
        answer=None,
        tokens=None,
        truncated=None,
        error=None,
        ending="",
        steps=[step],
    )
