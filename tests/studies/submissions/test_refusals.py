"""What is doctored is refused with its reason, and what was made elsewhere names nothing that is read or run here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from forged_submissions import ITEMS, LAYER, RUN, Doctor, as_right, check, edit, lost, replaced, rewrite, seal, told
from safetensors.torch import save_file

from onelayer.agents import patch as patches
from onelayer.agents.policy import Base
from onelayer.envs import load
from onelayer.envs.config import MathConfig
from onelayer.evals.records import MANIFEST, read_manifest
from onelayer.evals.samples import SAMPLES, Sample, samples_schema, write_rows
from onelayer.studies.leaderboard.marks import Mark, sha256
from onelayer.studies.store import PATCH
from onelayer.studies.submissions.archive import Claim
from onelayer.studies.submissions.refusal import Reason, Refused
from onelayer.studies.submissions.verification import Tools, verify


def first_wrong(samples: list[Sample]) -> int:
    return next(at for at, one in enumerate(samples) if not one.correct)


def swap(samples: list[Sample]) -> list[Sample]:
    return [samples[1], samples[0], *samples[2:]]


def text_only(samples: list[Sample]) -> list[Sample]:
    """The response reads otherwise, its tokens are the old ones."""
    step = samples[0].steps[0].model_copy(update={"response": "I know: \\boxed{7}", "action": "I know: \\boxed{7}"})
    return replaced(samples, 0, steps=[step], tokens=9)


def repatch(directory: Path, change: Callable[[patches.Patch], patches.Patch], everywhere: bool = True) -> None:
    """Another patch, and its hash wherever it is named."""
    path = directory / RUN / PATCH
    old = patches.read(path)
    new = patches.write(path, change(old))
    if everywhere:
        edit(directory / RUN / "run.json", lambda found: found.update(patch_sha256=new))
        edit(directory / LAYER / MANIFEST, lambda found: found.update(patches=[new]))


def louder(patch: patches.Patch) -> patches.Patch:
    return patches.Patch(patch.base, patch.trained_set, {name: weight * 1.5 for name, weight in patch.weights.items()})


def trained_entry(found: dict[str, Any]) -> dict[str, Any]:
    return found["trained"][0]


def fewer_items(directory: Path) -> None:
    """Only some items, with a digest of just those."""
    manifest = read_manifest(directory)
    chosen = [item for at, item in enumerate(load(MathConfig(), "test").items[:ITEMS]) if at % 2]
    kept = {item.id for item in chosen}
    rewrite(directory, lambda rows: [row for row in rows if row.item in kept])
    split = type(load(MathConfig(), "test"))(manifest.split, tuple(chosen))
    edit(directory / MANIFEST, lambda found: found.update(items=len(chosen), digest=split.digest))


def reseal(directory: Path) -> None:
    """The manifest names the records as they are."""
    edit(directory / MANIFEST, lambda found: found.update(samples_sha256=sha256(directory / SAMPLES)))


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Doctor:
    """Other tensors in the patch, of any type."""

    def doctor(directory: Path) -> None:
        path = directory / RUN / PATCH
        old = patches.read(path)
        header = json.dumps({"format": patches.FORMAT, "base": old.base, "trained_set": old.trained_set})
        save_file(change(old.weights), path, metadata={"onelayer": header})
        edit(directory / RUN / "run.json", lambda found: found.update(patch_sha256=sha256(path)))
        edit(directory / LAYER / MANIFEST, lambda found: found.update(patches=[sha256(path)]))

    return doctor


def first_value(value: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    def change(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        new = {name: weight.clone() for name, weight in old.items()}
        next(iter(new.values())).view(-1)[0] = value
        return new

    return change


def another_run(directory: Path) -> None:
    """A second run with the same patch, whose settings are others."""
    shutil.copytree(directory / RUN, directory / "run-1")
    edit(directory / "run-1" / "run.json", lambda found: found["config"]["trainer"].update(epochs=7))


def rows(count: int) -> Doctor:
    """Very many records of nothing."""

    def doctor(directory: Path) -> None:
        empty = pa.table({field.name: pa.nulls(count, field.type) for field in samples_schema()})
        pq.write_table(empty, directory / LAYER / SAMPLES, compression="zstd")
        reseal(directory / LAYER)

    return doctor


def cost(name: str, value: float) -> Doctor:
    """Of the training, wherever it is told."""
    return lambda d: (
        edit(d / LAYER / MANIFEST, lambda found: trained_entry(found)["cost"].update({name: value})),
        edit(d / RUN / "run.json", lambda found: found["cost"].update({name: value})),
    )


DOCTORED: dict[str, tuple[Doctor, Reason, str]] = {
    "verdicts changed": (lambda d: rewrite(d / LAYER, as_right), Reason.GRADE, "verdict 'correct', not 'wrong'"),
    "a reward changed": (lambda d: rewrite(d / LAYER, lambda r: replaced(r, first_wrong(r), reward=1.0)), Reason.GRADE, "reward 1.0"),
    "failures dropped": (
        lambda d: rewrite(d / LAYER, lambda rows: [row for row in rows if row.correct], figures=False),
        Reason.MISSING,
        "in all",
    ),
    "failed items dropped": (lambda d: fewer_items(d / LAYER), Reason.ITEMS, "another SHA-256"),
    "a sample twice": (lambda d: rewrite(d / LAYER, lambda rows: [rows[0], rows[0], *rows[2:]], figures=False), Reason.TWICE, "sampled 0"),
    "order swapped": (lambda d: rewrite(d / LAYER, swap), Reason.ORDER, "stands elsewhere"),
    "a foreign item": (lambda d: rewrite(d / LAYER, lambda rows: replaced(rows, 0, item="mine/1"), figures=False), Reason.ITEMS, "mine/1"),
    "a seed changed": (lambda d: rewrite(d / LAYER, lambda rows: replaced(rows, 0, seed=1)), Reason.SEED, "key"),
    "text without tokens": (lambda d: rewrite(d / LAYER, text_only), Reason.REPLY, "response"),
    "a figure changed": (
        lambda d: edit(d / LAYER / MANIFEST, lambda found: found["sampled"]["pass_rate"].update(mean=0.9, low=0.8, high=0.95)),
        Reason.COUNTS,
        "sampled.pass_rate",
    ),
    "errors hidden": (lambda d: edit(d / LAYER / MANIFEST, lambda found: found["greedy"].update(errors=3)), Reason.COUNTS, "greedy.errors"),
    "another base": (lambda d: edit(d / LAYER / MANIFEST, lambda found: found.update(base="0" * 64)), Reason.BASE, "000000000000"),
    "a patch of another base": (
        lambda d: repatch(d, lambda patch: patches.Patch("0" * 64, patch.trained_set, patch.weights)),
        Reason.BASE,
        "layer:3 belongs to 000000000000",
    ),
    "another patch": (lambda d: repatch(d, louder, everywhere=False), Reason.BROKEN, "is not here"),
    "another patch, named": (lambda d: repatch(d, louder), Reason.CONFIGURATION, "protocol"),
    "a patch under another name": (
        lambda d: repatch(d, lambda patch: patches.Patch(patch.base, "layer:2", patch.weights)),
        Reason.PATCH,
        "layer:2: its tensors are not those of that set",
    ),
    "more tokens allowed": (
        lambda d: edit(d / LAYER / MANIFEST, lambda found: (found.update(max_tokens=80), found["config"]["agent"].update(max_tokens=80))),
        Reason.CONFIGURATION,
        "protocol",
    ),
    "another prompt told": (
        lambda d: edit(d / LAYER / MANIFEST, lambda found: found.update(prompt="Think! {observation}")),
        Reason.CONFIGURATION,
        "prompt",
    ),
    "easier items": (
        lambda d: edit(d / LAYER / MANIFEST, lambda found: found["config"]["env"].update(difficulty=1)),
        Reason.ITEMS,
        "another SHA-256",
    ),
    "another temperature": (
        lambda d: edit(
            d / LAYER / MANIFEST, lambda found: (found.update(temperature=0.2), found["config"]["eval"].update(temperature=0.2))
        ),
        Reason.SEED,
        "key",
    ),
    "a cheaper training": (
        lambda d: edit(d / LAYER / MANIFEST, lambda found: trained_entry(found)["cost"].update(flops=1.0)),
        Reason.TRAINING,
        "cost",
    ),
    "fewer trained parameters": (
        lambda d: (
            edit(d / LAYER / MANIFEST, lambda found: trained_entry(found).update(parameters=7)),
            edit(d / RUN / "run.json", lambda found: found.update(trained_parameters=7)),
        ),
        Reason.TRAINING,
        "7 of",
    ),
    "a training without its manifest": (lambda d: (d / RUN / "run.json").unlink(), Reason.TRAINING, "no run.json"),
    "records of another format": (
        lambda d: (
            write_rows(d / LAYER / SAMPLES, [], samples_schema().remove(0)),
            edit(d / LAYER / MANIFEST, lambda f: f.update(samples_sha256=hashlib.sha256((d / LAYER / SAMPLES).read_bytes()).hexdigest())),
        ),
        Reason.BROKEN,
        "cannot be read as records",
    ),
    # What was lost is not believed.
    "everything lost": (lost(lambda row: True), Reason.LOST, "16 of 16 sampled ones"),
    "right replies lost": (lost(lambda row: row.correct, "evaluation-0"), Reason.LOST, "more than 5%"),
    "everything greedy lost": (lost(lambda row: row.decoding == "greedy"), Reason.LOST, "8 of 8 greedy ones"),
    # Every file belongs to an evaluation.
    "another run of the patch": (another_run, Reason.UNUSED, "run-1/patch.safetensors"),
    "a run beside them": (
        lambda d: (shutil.copytree(d / RUN, d / "run-1"), (d / "run-1" / PATCH).write_bytes(b"0")),
        Reason.UNUSED,
        "run-1/patch.safetensors",
    ),
    "a manifest alone": (
        lambda d: (shutil.copytree(d / RUN, d / "run-1"), (d / "run-1" / PATCH).unlink()),
        Reason.UNUSED,
        "run-1/run.json",
    ),
    "records alone": (
        lambda d: shutil.copytree(d / LAYER, d / "evaluation-7", ignore=lambda *_: {MANIFEST}),
        Reason.UNUSED,
        "evaluation-7/samples.parquet",
    ),
    # A foreign configuration names nothing.
    "a data set": (told(config__env__suite="hub:nobody/nothing"), Reason.UNVERIFIABLE, "its suite is hub:nobody/nothing"),
    "a file of items": (told(config__env__suite="/dev/zero.jsonl"), Reason.UNVERIFIABLE, "give --suite"),
    "a file of tasks": (
        told(config__env={"id": "onelayer/Code-v0", "suite": "/dev/zero.jsonl"}),
        Reason.UNVERIFIABLE,
        "its suite is /dev/zero.jsonl",
    ),
    # Everything is counted before it is made.
    "samples without end": (told(sampled__samples=10**8), Reason.BROKEN, "800000008 samples, more than the 524288"),
    "items without end": (told(items=10**7, config__env__size=10**7), Reason.UNVERIFIABLE, "10000000 items"),
    "empty rows": (rows(3_000_000), Reason.BROKEN, "3000000 samples"),
    "a few empty rows": (rows(24), Reason.BROKEN, "without"),
    "turns without end": (told(config__env__max_turns=10**9), Reason.UNVERIFIABLE, "1000000000 turns"),
    "a great manifest": (told(prompt="a" * (2 << 20)), Reason.BROKEN, "more than the 1048576 that are read"),
    # No nonsense.
    "a weight that is no number": (weights(first_value(float("nan"))), Reason.PATCH, "not finite"),
    "an infinite weight": (weights(first_value(float("-inf"))), Reason.PATCH, "not finite"),
    "complex weights": (weights(lambda old: {n: w.to(torch.complex64) for n, w in old.items()}), Reason.PATCH, "of type C64"),
    "integer weights": (weights(lambda old: {n: w.to(torch.int32) for n, w in old.items()}), Reason.PATCH, "of type I32"),
    "no weights": (weights(lambda old: {}), Reason.PATCH, "without tensors"),
    "weights of other shapes": (
        weights(lambda old: {n: w.flatten() for n, w in old.items()}),
        Reason.PATCH,
        "layer:3: its tensors are not those of that set",
    ),
    "a negative cost": (cost("gpu_seconds", -1.0), Reason.BROKEN, "greater than or equal to 0"),
    "a cost that is no number": (cost("flops", float("nan")), Reason.BROKEN, "finite number"),
    "a run that is a list": (lambda d: (d / RUN / "run.json").write_text("[]"), Reason.TRAINING, "run.json"),
    "a run of brackets": (lambda d: (d / RUN / "run.json").write_text("[" * 100_000), Reason.TRAINING, "run.json"),
    "items that were not asked for": (told(config__eval__items=100), Reason.CONFIGURATION, "asks for 100"),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_what_is_doctored_is_refused_with_its_reason(name: str, opened: Path, tools: Tools) -> None:
    """Each time the forger has computed anew what can be computed anew."""
    change, reason, words = DOCTORED[name]
    assert check(opened, tools) == [Mark.CHECKED] * 2
    change(opened)
    seal(opened)
    with pytest.raises(Refused) as caught:
        check(opened, tools)
    assert caught.value.reason is reason, caught.value
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [f"{LAYER}/{SAMPLES}", f"{LAYER}/{MANIFEST}", f"{RUN}/{PATCH}", f"{RUN}/run.json"])
def test_a_changed_byte_is_found(name: str, opened: Path, tools: Tools) -> None:
    data = bytearray((opened / name).read_bytes())
    data[len(data) // 2] ^= 1
    (opened / name).write_bytes(data)
    with pytest.raises(Refused, match="SHA-256") as caught:
        check(opened, tools)
    assert caught.value.reason is Reason.HASH and str(caught.value).startswith(name)


def test_an_unpacked_submission_is_still_foreign(opened: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under a submission.json was made elsewhere, whoever has unpacked it."""
    told(config__env={"id": "antigravity:Flying-v0"})(opened)
    seal(opened)
    here = Tools(load_base=lambda config: base, foreign=False)
    with pytest.raises(Refused, match="if you trust that module"):
        check(opened, here)


def test_what_was_made_elsewhere_names_no_code_weights_or_servers(opened: Path, tools: Tools) -> None:
    for change, words in (
        ({"env": {"id": "antigravity:Flying-v0"}}, "if you trust that module"),
        ({"model": {"path": "somebody/model"}}, "give --model"),
        ({"agent": {"engine": "http://127.0.0.1:9/v1"}}, "a server of somebody else"),
        ({"agent": {"chat_template": "{{ messages[-1].content * 10**8 }}"}}, "give --chat-template"),
    ):
        manifest = read_manifest(opened / LAYER)
        config = manifest.config | change
        claim = Claim(opened / LAYER, manifest.model_copy(update={"config": config}), [opened / RUN / PATCH])
        with pytest.raises(Refused, match=words) as caught:
            verify(claim, tools)
        assert caught.value.reason is Reason.UNVERIFIABLE
