"""The forgeries: what each changes in the files of an honest submission, by name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.patch import read
from onelayer.agents.policy import load_base
from onelayer.common.errors import UserError
from onelayer.envs import load
from onelayer.envs.config import MathConfig
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import first_items, plan, protocol_of, summarise
from onelayer.evals.model_policy import model_policy
from onelayer.evals.records import MANIFEST, Decoding, read_manifest
from onelayer.evals.samples import SAMPLES, read_samples, read_table, samples_schema, write_samples

BASE, LAYER, RUN, SUBMISSION, PATCH = "evaluation-0", "evaluation-1", "run-0", "submission.json", "patch.safetensors"
Doctor = Callable[[Path], object]


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; `a__b` is key b in a."""
    found = json.loads(path.read_bytes())
    for name, value in changes.items():
        *above, last = name.split("__")
        place = found
        for key in above:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    path.write_text(json.dumps(found))


def told(**changes: Any) -> Doctor:
    """The evaluation tells something else."""
    return lambda d: edit(d / LAYER / MANIFEST, **changes)


def sealed(directory: Path, name: str = LAYER) -> None:
    """The manifest names the records as they are."""
    edit(directory / name / MANIFEST, samples_sha256=hashlib.sha256((directory / name / SAMPLES).read_bytes()).hexdigest())


def rows(change: Callable[[list[Any]], list[Any]], figures: bool = True, name: str = LAYER) -> Doctor:
    """Other records, and figures to match."""

    def doctor(directory: Path) -> None:
        place = directory / name
        samples = change(read_samples(place / SAMPLES))
        write_samples(place / SAMPLES, samples)
        for decoding in Decoding if figures else ():
            with suppress(ValidationError):  # records that no figures can be of
                scores = summarise([one for one in samples if one.decoding == decoding]).model_dump(mode="json")
                edit(place / MANIFEST, **{decoding.value: scores})
        sealed(directory, name)

    return doctor


def each(**fields: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda samples: [one.model_copy(update=fields) for one in samples]


def first(**fields: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda samples: [samples[0].model_copy(update=fields), *samples[1:]]


def lost(which: Callable[[Any], bool]) -> Callable[[list[Any]], list[Any]]:
    gone = {"verdict": "error", "reward": 0.0, "error": "OSError: disk full"}
    return lambda samples: [one.model_copy(update=gone) if which(one) else one for one in samples]


def table(make: Callable[[pa.Table], pa.Table], **options: Any) -> Doctor:
    """Records in another form, which need not be records."""

    def doctor(directory: Path) -> None:
        path = directory / LAYER / SAMPLES
        pq.write_table(make(read_table(path)), path, compression="zstd", **options)
        sealed(directory)

    return doctor


def column(name: str, value: Callable[[int], Any]) -> Doctor:
    schema = samples_schema()
    at = schema.get_field_index(name)
    return table(lambda t: t.set_column(at, schema.field(name), pa.array([value(n) for n in range(len(t))], schema.field(name).type)))


def steps(of: Callable[[dict[str, Any]], list[dict[str, Any]]], count: int, **options: Any) -> Doctor:
    """`count` records whose steps are made of the first one's."""

    def make(found: pa.Table) -> pa.Table:
        row = found.slice(0, 1).to_pylist()[0]
        return pa.Table.from_pylist([row | {"steps": of(row["steps"][0])}] * count, schema=found.schema)

    return table(make, **options)


def repeated(values: dict[str, pa.Scalar], count: int) -> Doctor:
    """Very many rows of the same."""
    return table(lambda t: pa.table({f.name: pa.repeat(values.get(f.name, pa.scalar(None, f.type)), count) for f in t.schema}))


def a_row(found: Path) -> dict[str, pa.Scalar]:
    row = read_table(found / LAYER / SAMPLES).slice(0, 1)
    return {name: row.column(name)[0] for name in row.column_names if name != "steps"}


def patch(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], **header: Any) -> Doctor:
    """Other weights, their hash wherever it is named, and the keys that follow from it."""

    def doctor(directory: Path) -> None:
        path = directory / RUN / PATCH
        old = read(path)
        metadata = {"format": "onelayer-patch-1", "base": old.base, "trained_set": old.trained_set} | header
        save_file(change(load_file(path)), path, metadata={"onelayer": json.dumps(metadata)})
        rehash(directory)

    return doctor


def rehash(directory: Path) -> None:
    sha = hashlib.sha256((directory / RUN / PATCH).read_bytes()).hexdigest()
    edit(directory / RUN / "run.json", patch_sha256=sha)
    edit(directory / LAYER / MANIFEST, patches=[sha])


def one(value: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: {name: torch.full_like(w, value) if at == 0 else w for at, (name, w) in enumerate(weights.items())}


def cast(dtype: torch.dtype) -> Doctor:
    return patch(lambda weights: {name: weight.to(dtype) for name, weight in weights.items()})


def raw_patch(header: bytes, length: int | None = None, zeros: int = 0) -> Doctor:
    def doctor(directory: Path) -> None:
        path = directory / RUN / PATCH
        path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
        os.truncate(path, 8 + len(header) + zeros)
        rehash(directory)

    return doctor


def tensors(count: int, size: int = 0) -> bytes:
    told = {"__metadata__": {"onelayer": json.dumps({"format": "onelayer-patch-1", "base": "0" * 64, "trained_set": "layer:3"})}}
    entries = {f"t{n}": {"dtype": "F32", "shape": [size], "data_offsets": [4 * size * n, 4 * size * (n + 1)]} for n in range(count)}
    return json.dumps(told | entries).encode()


def rekeyed(**changes: Any) -> Doctor:
    """Another configuration, and protocol, keys and manifest as they would be under it."""

    def doctor(directory: Path) -> None:
        place = directory / LAYER
        edit(place / MANIFEST, **{f"config__{name}": value for name, value in changes.items()})
        manifest = read_manifest(place)
        base, env = load_base(ModelConfig()), MathConfig.model_validate(manifest.config["env"])
        try:
            agent = make_agent(base, AgentConfig.model_validate(manifest.config["agent"]), env)
        except UserError:  # no agent has this configuration, so its protocol is nobody's
            agent = make_agent(base, AgentConfig(), env)
        policy = model_policy(base, "tiny", [read(directory / RUN / PATCH)], manifest.trained)
        protocol = protocol_of(agent, manifest.split, policy, manifest.config)
        split = first_items(load(MathConfig(difficulty=env.difficulty), "test"), manifest.items)
        config = EvalConfig.model_validate(manifest.config["eval"])
        wanted = plan(split, config, manifest.sampled.samples, protocol)
        samples = [one.model_copy(update={"key": due.key}) for one, due in zip(read_samples(place / SAMPLES), wanted, strict=True)]
        write_samples(place / SAMPLES, samples)
        edit(place / MANIFEST, protocol=protocol, max_tokens=agent.config.max_tokens)
        sealed(directory)

    return doctor


def another_run(**changes: Any) -> Doctor:
    """A second run directory."""

    def doctor(directory: Path) -> None:
        shutil.copytree(directory / RUN, directory / "run-1")
        edit(directory / "run-1" / "run.json", **changes)

    return doctor


def both(*doctors: Doctor) -> Doctor:
    return lambda d: [doctor(d) for doctor in doctors]


def cost(**changes: float) -> Doctor:
    """The training and the evaluation of it tell another cost."""
    named = {f"cost__{name}": value for name, value in changes.items()}
    return both(
        told(**named, **{f"trained__0__{name}": value for name, value in named.items()}), lambda d: edit(d / RUN / "run.json", **named)
    )


def many_evaluations(directory: Path) -> None:
    for number in range(2, 9000):
        (directory / f"evaluation-{number}").mkdir()
        (directory / f"evaluation-{number}" / MANIFEST).write_text("{}")


DEEP, DIGITS = "[" * 100_000, "9" * 5_000
NAMES = {
    "a data set": told(config__env__suite="hub:nobody/nothing"),
    "a file": told(config__env__suite="/etc/passwd.jsonl"),
    "an endless file": told(config__env__suite="ENDLESS"),
    "a pipe": told(config__env__suite="PIPE"),
    "a file nearby": told(config__env__suite="../../run-0/run.jsonl"),
    "a file of code tasks": told(config__env={"id": "onelayer/Code-v0", "suite": "ENDLESS"}),
    "a data set of code tasks": told(config__env={"id": "onelayer/Code-v0", "suite": "hub:nobody/nothing"}),
    "a module": told(config__env={"id": "antigravity:Flying-v0"}),
    "a module with options": told(config__env={"id": "os.path:exists/X-v0", "options": {"a": [0] * 1000}}),
    "a task of a library": told(config__env={"id": "reasoning_gym:leg_counting"}),
    "games by path": told(config__env={"id": "onelayer/ALFWorld-v0", "suite": "/tmp"}),
    "weights on a hub": told(model="nobody/nothing", config__model__path="nobody/nothing"),
    "weights in a directory": told(model="/etc", config__model__path="/etc"),
    "weights by a long way": told(model="tiny/../tiny", config__model__path="tiny/../tiny"),
    "a server of tokens": told(config__agent__engine="http://127.0.0.1:9/v1"),
    "an engine of its own": told(config__agent__engine="vllm:/bin/sh"),
    "an endpoint": told(source="endpoint", patches=[], trained=[], base="none", config__eval__endpoint={"url": "http://127.0.0.1:9/v1"}),
    "a prompt's file": told(config__agent__prompt={"file": "/etc/passwd"}),
    "a chat template": told(config__agent__chat_template="{{ messages[-1].content * 10**8 }}"),
    "an endless chat template": told(
        config__agent__chat_template="{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
    ),
    "a system message's file": told(config__agent__system={"file": "/etc/passwd"}),
    "an engine of a module": told(config__agent__engine="antigravity:Engine"),
    "an algorithm of a module": lambda d: edit(d / RUN / "run.json", config__trainer__algorithm="antigravity:advantages"),
    "a numeric format": told(config__model__dtype="os.system"),
    "a suite to evaluate on": told(config__eval__suite="hub:nobody/nothing"),
    "a split by path": told(split="../../etc/passwd"),
}
SIZES = {
    "samples without end": told(sampled__samples=10**8),
    "samples beyond numbers": told(sampled__samples=10**18),
    "greedy samples": told(greedy__samples=10**8),
    "items without end": told(items=10**9),
    "items and size": told(items=10**9, config__env__size=10**9, config__eval__items=10**9),
    "items, generated hard": told(items=10**5, config__env__size=10**6, config__env__difficulty=12, config__eval__items=10**5),
    "functions without end": told(items=10**6, config__env={"id": "onelayer/Code-v0", "size": 10**6}),
    "games without end": told(items=10**6, config__env={"id": "onelayer/ALFWorld-v0", "size": 10**6}),
    "ten million empty rows": repeated({}, 10**7),
    "ten million rows": lambda d: repeated(a_row(d), 10**7)(d),
    "half a million rows": lambda d: both(repeated(a_row(d), 500_000), told(items=8, sampled__samples=62_499))(d),
    "a long prompt, often": steps(lambda s: [s | {"prompt": "a" * (1 << 20)}], 2000),
    "a prompt of a gigabyte": steps(lambda s: [s | {"prompt": "a" * (1 << 30)}], 1, use_dictionary=False, data_page_size=2**31 - 1),
    "an ending of 300 megabytes": column("ending", lambda n: "a" * (300 << 20) if n == 0 else ""),
    "an answer of 300 megabytes": column("answer", lambda n: "a" * (300 << 20) if n == 0 else None),
    "an error of 300 megabytes": column("error", lambda n: "a" * (300 << 20) if n == 0 else None),
    "a reply of 20 million tokens": steps(lambda s: [s | {"token_ids": [5] * 20_000_000}], 1),
    "a reply of 2 million tokens": steps(lambda s: [s | {"token_ids": [5] * 2_000_000}], 1),
    "2 million steps": steps(lambda s: [{**s, "token_ids": [], "prompt": "", "observation": ""}] * 2_000_000, 1),
    "turns without end": rekeyed(env__max_turns=10**9),
    "turns up to the limit": rekeyed(env__max_turns=1000),
    "tokens without end": rekeyed(agent__max_tokens=10**9),
    "a wide prompt": told(config__agent__prompt="{observation:>9999999999}"),
    "a batch without end": both(told(config__agent__max_batch=10**12), first_wrong := rows(each(verdict="correct", reward=1.0))),
    "a cache without end": both(told(config__agent__kv_cache_gib=1e9), first_wrong),
    "a manifest of brackets": lambda d: (d / LAYER / MANIFEST).write_text(DEEP),
    "a manifest with brackets": lambda d: told(config__env=0)(d) or swap(d / LAYER / MANIFEST, '"env": 0', f'"env": {DEEP}'),
    "a manifest with a long number": lambda d: told(items=0)(d) or swap(d / LAYER / MANIFEST, '"items": 0', f'"items": {DIGITS}'),
    "a manifest of empty lists": told(config__pool=[[]] * 200_000),
    "a manifest of 4 MiB": told(prompt="a" * (4 << 20)),
    "a manifest of many types": told(sampled__by_type={f"t{n}": {"items": 1} for n in range(20_000)}),
    "a run of brackets": lambda d: (d / RUN / "run.json").write_text(DEEP),
    "a run that is a list": lambda d: (d / RUN / "run.json").write_text("[]"),
    "a run of 7 MiB": lambda d: edit(d / RUN / "run.json", split="a" * (7 << 20)),
    "patches without end": lambda d: told(
        patches=[read_manifest(d / LAYER).patches[0]] * 5000, trained=[json.loads((d / LAYER / MANIFEST).read_text())["trained"][0]] * 200
    )(d),
    "a patch many times": lambda d: told(
        patches=read_manifest(d / LAYER).patches * 50, trained=json.loads((d / LAYER / MANIFEST).read_text())["trained"] * 50
    )(d),
    "a header without end": raw_patch(b"{}", 1 << 60),
    "a header of 50 MiB": raw_patch(b" " * (50 << 20)),
    "a header of many tensors": raw_patch(tensors(80_000)),
    "a tensor of a gigabyte": raw_patch(tensors(1, 300_000_000), zeros=1_200_000_000),
    "a long trained set": patch(lambda w: w, trained_set="layers:" + "3," * 100_000 + "3"),
    "a layer of 5,000 digits": patch(lambda w: w, trained_set=f"layer:{DIGITS}"),
    "nine thousand evaluations": many_evaluations,
}


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


NONSENSE = {
    "a weight that is not a number": patch(one(float("nan"))),
    "an infinite weight": patch(one(float("inf"))),
    "a weight of minus infinity": patch(one(float("-inf"))),
    **{f"weights of {dtype}": cast(dtype) for dtype in (torch.int8, torch.int32, torch.int64, torch.bool, torch.complex64)},
    **{f"weights of {dtype}": cast(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)},
    "no tensors": patch(lambda w: {}),
    "one tensor more": patch(lambda w: w | {"model.more.weight": torch.zeros(1)}),
    "one tensor fewer": patch(lambda w: dict(list(w.items())[1:])),
    "empty tensors": patch(lambda w: {name: weight[:0].clone() for name, weight in w.items()}),
    "flat tensors": patch(lambda w: {name: weight.flatten() for name, weight in w.items()}),
    "a header without a base": patch(lambda w: w, base=None),
    "a header that is a list": lambda d: (save_file(load_file(p := d / RUN / PATCH), p, metadata={"onelayer": "[]"}), rehash(d)),
    "a header of brackets": lambda d: (save_file(load_file(p := d / RUN / PATCH), p, metadata={"onelayer": DEEP}), rehash(d)),
    "everything lost": rows(lost(lambda s: True)),
    "everything sampled lost": rows(lost(lambda s: s.decoding == "sampled")),
    "everything greedy lost": rows(lost(lambda s: s.decoding == "greedy")),
    "a base's right replies lost": rows(lost(lambda s: s.correct), name=BASE),
    "another run of the same patch": another_run(config__trainer__lr=1.0),
    "another run of another patch": both(another_run(patch_sha256="0" * 64), lambda d: (d / "run-1" / PATCH).write_bytes(b"0" * 100)),
    "a run without a patch": both(another_run(), lambda d: (d / "run-1" / PATCH).unlink()),
    "records without a manifest": lambda d: shutil.copytree(d / LAYER, d / "evaluation-7", ignore=lambda *_: {MANIFEST}),
    "a patch alone": lambda d: [(d / "run-5").mkdir(), (d / "run-5" / PATCH).write_bytes(b"0" * 100)],
    **{
        f"a cost of {value} {name}": cost(**{name: value})
        for name in ("seconds", "gpu_seconds", "peak_memory", "peak_worker_memory", "peak_gpu_memory", "tokens", "flops")
        for value in (-1,)
    },
    "a cost that is not a number": cost(seconds=float("nan")),
    "an infinite cost": cost(flops=float("inf")),
    "a negative learning rate": both(
        told(trained__0__lr=-1.0), lambda d: edit(d / RUN / "run.json", config__trainer__lr=-1.0, config__trainer__layer_lr=-1.0)
    ),
    "a cost beyond numbers": cost(tokens=10**400),
    "more parameters than there are": both(
        told(trained__0__parameters=10**12), lambda d: edit(d / RUN / "run.json", trained_parameters=10**12)
    ),
    "a share of 7": lambda d: edit(d / RUN / "run.json", truncated=7),
    "episodes below zero": lambda d: edit(d / RUN / "run.json", dropped=-5),
    "skipped items": told(skipped={"a": "unreadable"}),
    "tokens that are not told": told(sampled__mean_tokens=None),
    "negative requests": told(requests={"sent": -5}),
    "a temperature below zero": told(temperature=-1.0, config__eval__temperature=-1.0),
    "no tokens allowed": told(max_tokens=0, config__agent__max_tokens=0),
    "fewer items told than asked for": told(config__eval__items=100),
    "no layers": told(layers=0),
    "other layers": told(layers=99),
    "an error without its verdict": rows(first(error="OSError", reward=0.0, verdict="wrong")),
    "a verdict of error without one": rows(first(verdict="error", reward=0.0)),
    "a reward that is not a number": rows(first(reward=float("nan"))),
    "a reward of a million": rows(first(reward=1e6, verdict="correct")),
    "tokens below zero": rows(first(tokens=-5)),
    "a record without its key": column("key", lambda n: None),
    "a sample below zero": column("sample", lambda n: -1),
    "a decoding of its own": column("decoding", lambda n: "beam"),
    "an episode without steps": rows(first(steps=[], tokens=0)),
    "twice as many steps": rows(lambda s: [s[0].model_copy(update={"steps": s[0].steps * 2}), *s[1:]]),
    "every verdict right": first_wrong,
    "greedy as good as the best": rows(
        lambda s: [one.model_copy(update={"verdict": "correct", "reward": 1.0}) if one.decoding == "greedy" else one for one in s]
    ),
}
REGENERATE = {"one right reply lost": rows(lambda s: lost(lambda x: x.key == next(y.key for y in s if y.correct))(s), name=BASE)}
