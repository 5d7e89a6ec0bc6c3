"""What is doctored is refused with its reason; what is not, is the same bytes each time, and passes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from onelayer.agents import patch as patches
from onelayer.agents.agent import derive_seed, make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Completion, FinishReason
from onelayer.agents.policy import Base, load_base
from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.envs import load
from onelayer.envs.config import MathConfig, PoolConfig
from onelayer.envs.math.env import MathEnv
from onelayer.envs.pool import open_pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate, first_items, model_policy, sample_seed, summarise
from onelayer.evals.records import MANIFEST, Decoding, read_manifest
from onelayer.evals.responses import ResponsesEngine
from onelayer.evals.samples import SAMPLES, Sample, read_samples, samples_schema, write_rows, write_samples
from onelayer.studies.leaderboard.marks import VERIFIED, Mark, mark_of, sha256
from onelayer.studies.store import PATCH, SUBMISSION
from onelayer.studies.submissions.archive import Claim, gather, pack, read_submission, unpack
from onelayer.studies.submissions.recorded import OUTCOME, Outcome
from onelayer.studies.submissions.refusal import Reason, Refused
from onelayer.studies.submissions.verification import Tools, _draw, check_files, verify

TRAIN = ["train", "quickstart", "trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]
ITEMS, EACH = 8, 2


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelConfig())


@pytest.fixture(scope="module")
def tools(base: Base) -> Tools:
    return Tools(load_base=lambda config: base, foreign=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base and a trained layer on a few items."""
    root = tmp_path_factory.mktemp("runs")
    suite = ["eval", "--suite", "arithmetic", "--items", str(ITEMS), "--n", str(EACH), "--output"]
    assert main([*TRAIN, "--output", str(root / "layer")]) == 0
    assert main([*suite, str(root / "base")]) == 0
    assert main([*suite, str(root / "layer" / "test"), "--patch", str(root / "layer" / PATCH)]) == 0
    return root


@pytest.fixture(scope="module")
def archive(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "mine.tar"
    assert main(["submit", str(runs), "--output", str(path)]) == 0
    return path


@pytest.fixture
def opened(archive: Path, tmp_path: Path) -> Path:
    """The archive's files, to be doctored."""
    unpack(archive, tmp_path / "opened")
    return tmp_path / "opened"


LAYER, RUN = "evaluation-1", "run-0"  # of the archive: the base is evaluation-0


def seal(directory: Path) -> None:
    """List the hashes of the files as they are now, as anyone can."""
    submission = read_submission(directory)
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file() and path.name != SUBMISSION}
    filed = {name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size} for name, path in paths.items()}
    (directory / SUBMISSION).write_text(json.dumps(submission.model_dump() | {"files": filed}))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest."""
    found = json.loads(path.read_bytes())
    change(found)
    path.write_text(json.dumps(found))


def rewrite(directory: Path, change: Callable[[list[Sample]], list[Sample]], figures: bool = True) -> None:
    """Change the records, and everything that follows from them as far as it still does."""
    samples = change(read_samples(directory / SAMPLES))
    new: dict[str, Any] = {"samples_sha256": hashlib.sha256(write_samples(directory / SAMPLES, samples)).hexdigest()}
    if figures:
        for decoding in Decoding:
            new[decoding.value] = summarise([one for one in samples if one.decoding == decoding]).model_dump(mode="json")
    edit(directory / MANIFEST, lambda found: found.update(new))


def as_right(samples: list[Sample]) -> list[Sample]:
    return [one.model_copy(update={"verdict": "correct", "reward": 1.0}) for one in samples]


def replaced(samples: list[Sample], at: int, **fields: object) -> list[Sample]:
    return [one.model_copy(update=fields) if number == at else one for number, one in enumerate(samples)]


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


def lost(which: Callable[[Sample], bool], name: str = LAYER) -> Doctor:
    """Some samples are told as lost to a failing environment."""
    gone = {"verdict": "error", "reward": 0.0, "error": "OSError: disk full"}
    return lambda d: rewrite(d / name, lambda rows: [row.model_copy(update=gone) if which(row) else row for row in rows])


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


def told(**changes: object) -> Doctor:
    """The evaluation tells something else; `a__b` is key b in a."""

    def change(found: dict[str, Any]) -> None:
        for name, value in changes.items():
            *above, last = name.split("__")
            place = found
            for key in above:
                place = place[key]
            place[last] = value

    return lambda d: edit(d / LAYER / MANIFEST, change)


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


Doctor = Callable[[Path], object]
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
        lambda d: edit(d / LAYER / MANIFEST, lambda found: found["sampled"]["pass_rate"].update(mean=0.9)),
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
        "not those of layer:2",
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
    "weights of other shapes": (weights(lambda old: {n: w.flatten() for n, w in old.items()}), Reason.PATCH, "not those of layer:3"),
    "a negative cost": (cost("gpu_seconds", -1.0), Reason.BROKEN, "greater than or equal to 0"),
    "a cost that is no number": (cost("flops", float("nan")), Reason.BROKEN, "finite number"),
    "a run that is a list": (lambda d: (d / RUN / "run.json").write_text("[]"), Reason.TRAINING, "run.json"),
    "a run of brackets": (lambda d: (d / RUN / "run.json").write_text("[" * 100_000), Reason.TRAINING, "run.json"),
    "items that were not asked for": (told(config__eval__items=100), Reason.CONFIGURATION, "asks for 100"),
}


def check(directory: Path, tools: Tools, regenerate: int = 0) -> list[Mark]:
    return [verify(claim, tools, regenerate, seed=3).mark for claim in check_files(directory, read_submission(directory))]


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


class TransformersEngine(ResponsesEngine):
    """Says what it was told to, under the name of an engine that samples."""

    returns_tokens = True


def forge(opened: Path, base: Base) -> None:
    """Every reply is the right answer, in tokens, played through the real evaluator: records, figures and all hashes fit together."""
    directory = opened / LAYER
    manifest = read_manifest(directory)
    split = first_items(load(MathConfig(), "test"), ITEMS)
    replies = {}
    for item in split.items:
        ids = [*base.tokenizer.encode(f"\\boxed{{{item.gold}}}", add_special_tokens=False), base.tokenizer.eos_token_id]
        for decoding in Decoding:
            for sample in range(EACH):
                replies[decoding, derive_seed(sample_seed(0, item.id, sample), 0)] = Completion(0, ids, [], FinishReason.STOP)
    agent = make_agent(base, AgentConfig(), MathConfig())
    agent.engine = TransformersEngine(replies)
    claim = next(claim for claim in gather([opened]) if claim.directory == directory)
    policy = model_policy(base, "tiny", [patches.read(path) for path in claim.patches], manifest.trained)
    shutil.rmtree(directory)
    with open_pool(MathConfig(), "test", PoolConfig()) as pool:
        config = EvalConfig.model_validate(manifest.config["eval"])
        evaluate(agent, pool, split, config, directory, policy=policy, recipe=manifest.config, samples=EACH)
    seal(opened)


def test_a_consistent_forgery_passes_every_check_but_making_samples_again(opened: Path, base: Base, tools: Tools) -> None:
    assert check(opened, tools, regenerate=ITEMS) == [Mark.REGENERATED] * 2
    forge(opened, base)
    assert read_manifest(opened / LAYER).sampled.pass_rate.mean == 1
    assert check(opened, tools) == [Mark.CHECKED] * 2
    with pytest.raises(Refused, match=f"1[0-6] of {2 * ITEMS} samples") as caught:
        check(opened, tools, regenerate=ITEMS)
    assert caught.value.reason is Reason.TOKENS


def test_lost_samples_are_played_again(opened: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right reply told as lost is found; what is lost here, too, keeps the evaluation from being marked as regenerated."""
    victim = next(row for row in read_samples(opened / "evaluation-0" / SAMPLES) if row.correct)
    monkeypatch.setattr("onelayer.studies.submissions.recorded.LOST_LIMIT", 0.2)
    lost(lambda row: row.key == victim.key, "evaluation-0")(opened)
    seal(opened)
    assert check(opened, tools) == [Mark.CHECKED] * 2
    with pytest.raises(Refused, match=f"1 of the 1 that were lost .*{victim.item} {victim.decoding} {victim.sample} is correct") as caught:
        check(opened, tools, regenerate=1)
    assert caught.value.reason is Reason.LOST

    step = MathEnv.step

    def failing(env: MathEnv, action: str) -> Any:
        if env._item and env._item.id == victim.item:
            raise OSError("disk full")
        return step(env, action)

    lost(lambda row: row.item == victim.item, "evaluation-0")(opened)
    lost(lambda row: row.item == victim.item, LAYER)(opened)
    seal(opened)
    monkeypatch.setattr(MathEnv, "step", failing)
    assert check(opened, tools, regenerate=1) == [Mark.CHECKED] * 2


def test_as_many_greedy_samples_are_made_again_as_sampled_ones(opened: Path, base: Base, tools: Tools) -> None:
    """The greedy replies alone are forged: of few that are drawn, half are of them."""
    samples = read_samples(opened / LAYER / SAMPLES)
    found = [Outcome(*(getattr(row, name) for name in OUTCOME)) for row in samples]
    drawn = [samples[number].decoding for number in _draw(found, 3, seed=0)]
    assert (drawn.count("sampled"), drawn.count("greedy")) == (3, 3)


def test_a_suite_that_is_named_here_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = load(MathConfig(), "test").items[:40]
    lines = "".join(json.dumps({"question": item.question, "answer": item.gold}) + "\n" for item in items)
    (tmp_path / "mine.jsonl").write_text(lines)
    suite = str(tmp_path / "mine.jsonl")
    assert main(["eval", "--suite", f"{suite}/all", "--items", "4", "--n", "1", "--output", str(tmp_path / "runs")]) == 0
    assert main(["submit", str(tmp_path / "runs"), "--output", str(tmp_path / "mine.tar")]) == 0
    assert main(["verify", str(tmp_path / "mine.tar")]) == 2
    assert "give --suite" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "mine.tar"), "--suite", suite]) == 0


def test_an_unpacked_submission_is_still_foreign(opened: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under a submission.json was made elsewhere, whoever has unpacked it."""
    told(config__env={"id": "antigravity:Flying-v0"})(opened)
    seal(opened)
    here = Tools(load_base=lambda config: base, foreign=False)
    with pytest.raises(Refused, match="if you trust that module"):
        check(opened, here)


def tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))


def member(name: str, data: bytes = b"{}", type: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.type, header.linkname = len(data) if type == tarfile.REGTYPE else 0, type, link
    return header, data


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an absolute path": (lambda p: tar(p, [member("/tmp/evil.json")]), "no place in a submission"),
    "a path that climbs": (lambda p: tar(p, [member("run-0/../../evil.json")]), "no place in a submission"),
    "another file": (lambda p: tar(p, [member("run-0/run.json.sh")]), "no place in a submission"),
    "a name with escapes": (lambda p: tar(p, [member("\x1b[31m.json")]), "'\\\\x1b[31m.json' has no place"),
    "a link": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.SYMTYPE, link="/etc/passwd")]), "no regular file"),
    "a hard link": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.LNKTYPE, link="/etc/passwd")]), "no regular file"),
    "a device": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.CHRTYPE)]), "no regular file"),
    "a long name": (lambda p: tar(p, [member("a" * 300)], format=tarfile.GNU_FORMAT), "no regular file"),
    "an extended header": (lambda p: tar(p, [member("\u00fc")], format=tarfile.PAX_FORMAT), "no regular file"),
    "a mark of its own": (lambda p: tar(p, [member(f"evaluation-0/{VERIFIED}")]), "marks are given here"),
    "a file twice": (lambda p: tar(p, [member(SUBMISSION), member(SUBMISSION)]), "twice"),
    "a manifest without end": (lambda p: tar(p, [member(SUBMISSION, b" " * (17 << 20))]), "its manifests are 17825792 bytes"),
    "more than there is": (lambda p: (tar(p, [member(SUBMISSION, b"0" * 9999)]), p.write_bytes(p.read_bytes()[:5000])), "not copied whole"),
    "compressed": (lambda p: tar_gz(p), "no submission"),
    "no archive": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8), "no submission"),
    "nothing": (lambda p: p.write_bytes(b""), f"no {SUBMISSION}"),
}


def tar_gz(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        header, data = member(SUBMISSION)
        archive.addfile(header, io.BytesIO(data))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_can_not_reach_beyond_its_directory(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    place = tmp_path / "deep" / "place"
    make(tmp_path / "hostile.tar")
    with pytest.raises(UserError) as caught:
        unpack(tmp_path / "hostile.tar", place)
    assert words in str(caught.value)
    outside = {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(place)}
    assert outside <= {"hostile.tar", "deep"} and not Path("/tmp/evil.json").exists()


def test_records_that_unfold_without_end_are_not_read(opened: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal texts are stored once: what is small as a file may be large as records."""
    row = read_samples(opened / LAYER / SAMPLES)[0].model_dump()
    row["steps"][0]["prompt"] = "a" * (1 << 20)
    path = opened / LAYER / SAMPLES
    data = write_rows(path, [row] * 100, samples_schema())
    assert len(data) < 1 << 20
    edit(opened / LAYER / MANIFEST, lambda found: found.update(samples_sha256=hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr("onelayer.studies.submissions.recorded.TEXT_LIMIT", 50 << 20)
    monkeypatch.setattr("onelayer.studies.submissions.recorded.read_columns", lambda path: pytest.fail("it was read"))
    claim = Claim(opened / LAYER, read_manifest(opened / LAYER), [opened / RUN / PATCH])
    with pytest.raises(Refused, match="unfolds to 104") as caught:
        verify(claim, tools)
    assert caught.value.reason is Reason.BROKEN


def test_what_was_made_elsewhere_names_no_code_weights_or_servers(opened: Path, tools: Tools) -> None:
    for change, words in (
        ({"env": {"id": "antigravity:Flying-v0"}}, "if you trust that module"),
        ({"model": {"path": "somebody/model"}}, "give --model"),
        ({"agent": {"engine": "http://127.0.0.1:9/v1"}}, "a server of somebody else"),
    ):
        manifest = read_manifest(opened / LAYER)
        config = manifest.config | change
        claim = Claim(opened / LAYER, manifest.model_copy(update={"config": config}), [opened / RUN / PATCH])
        with pytest.raises(Refused, match=words) as caught:
            verify(claim, tools)
        assert caught.value.reason is Reason.UNVERIFIABLE


def test_the_same_evaluations_are_the_same_bytes(runs: Path, archive: Path, tmp_path: Path) -> None:
    pack(gather([runs / "layer" / "test", runs / "base"]), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    with pytest.raises(UserError, match="name the directory of its run"):
        shutil.copytree(runs / "layer" / "test", tmp_path / "alone")
        gather([tmp_path / "alone"])
    assert len(gather([tmp_path / "alone", runs / "layer"])) == 2
    with tarfile.open(archive) as plain:
        assert {(one.mtime, one.uid, one.uname, one.mode) for one in plain.getmembers()} == {(0, 0, "", 0o644)}


def test_a_submission_is_verified_unpacked_and_shown_with_its_mark(
    archive: Path, opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "site-runs" / "theirs"
    assert main(["verify", str(archive), "--regenerate", "3", "--seed", "1", "--unpack", str(theirs)]) == 0
    shown = capsys.readouterr().out
    assert "--seed 1" in shown and shown.count("6 made again with the same tokens: regenerated") == 2
    assert {mark_of(theirs / name) for name in ("evaluation-0", LAYER)} == {Mark.REGENERATED}
    assert main(["verify", str(theirs)]) == 0  # a weaker look takes no mark away
    assert mark_of(theirs / LAYER) is Mark.REGENERATED
    assert main(["leaderboard", str(tmp_path / "site-runs"), "--output", str(tmp_path / "site")]) == 0
    board = json.loads((tmp_path / "site/leaderboard.json").read_text())
    (table,) = [table for table in board["tables"] if table["suite"] == "arithmetic/test"]
    assert {entry["trained_set"]: entry["mark"] for entry in table["entries"]} == {"base": "regenerated", "layer:3": "regenerated"}
    assert board["left_out"] == []

    rewrite(opened / LAYER, as_right)
    seal(opened)
    tar(tmp_path / "bad.tar", [member(p.relative_to(opened).as_posix(), p.read_bytes()) for p in sorted(opened.rglob("*")) if p.is_file()])
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "bad.tar"), "--unpack", str(tmp_path / "refused")]) == 2
    assert "evaluation-1: graded otherwise: arithmetic/" in capsys.readouterr().err and not (tmp_path / "refused").exists()
    assert main(["verify", str(opened), "--model", "tiny"]) == 2
    assert mark_of(opened / LAYER) is Mark.UNVERIFIED and mark_of(opened / "evaluation-0") is Mark.CHECKED
    assert not [path for path in tmp_path.rglob(".verify-*")]


def test_a_rule_and_a_file_of_responses_are_graded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = ["eval", "--suite", "arithmetic", "--items", "4", "--n", "1"]
    items = load(MathConfig(), "test").items[:4]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps({"item": i.id, "response": f"\\boxed{{{i.gold}}}"}) + "\n" for i in items))
    assert main([*suite, "--baseline", "gold", "--output", str(tmp_path / "runs/gold")]) == 0
    assert main([*suite, "--responses", str(tmp_path / "theirs.jsonl"), "--output", str(tmp_path / "runs/theirs")]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "runs"), "--regenerate", "2"]) == 0
    assert capsys.readouterr().out.count("8 samples graded again: checked") == 2
    rewrite(
        tmp_path / "runs/theirs",
        lambda rows: replaced(rows, 0, steps=[rows[0].steps[0].model_copy(update={"response": "0", "action": "0"})]),
    )
    assert main(["verify", str(tmp_path / "runs/theirs")]) == 2
    assert "graded otherwise" in capsys.readouterr().err
