"""The server of `onelayer view`: what it answers, what it refuses, and that it keeps up with a directory that changes under it."""

from __future__ import annotations

import html
import http.client
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import viewed
from hypothesis import given
from hypothesis import strategies as st
from made_runs import ITEMS, make_evaluation, make_run, outcomes, rewrite
from scipy import stats

from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.common.text import shown
from onelayer.evals.samples import SAMPLES, read_samples, read_table
from onelayer.pages.viewer import run_index
from onelayer.pages.viewer.charts import axis
from onelayer.pages.viewer.episode_page import url
from onelayer.pages.viewer.server import Server
from onelayer.studies.profiles import Coefficient, profile_agreement

Ask = Callable[..., tuple[int, str]]
LAYERS = [f"layer-{layer}" for layer in range(6)]
DEEP = "[" * 200_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {  # name of a file: what stands in it; None: a pipe
    "config.yaml": (DEEP, BOMB, "- " * 100_000, "trainer: {lr: " + "1" * 5000 + "}", None),
    "run.json": (DEEP, "[]", '{"schema_version": 2, "config": 5}', None),
    "evaluation.json": (DEEP, "5", '{"schema_version": ' + "1" * 5000 + "}", None),
    "journal.jsonl": (DEEP + "\n", '{"key":"a","x":' + DEEP + ',"steps":[\n', '{"spent":' + DEEP + "\n", None),
    "suites.json": (DEEP, "[]", None),
    "samples.parquet": (DEEP, "PAR1PAR1", None),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return viewed.make_viewed(tmp_path_factory.mktemp("viewed"))


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Ask a server of tmp_path/runs."""
    monkeypatch.setattr(run_index, "LOOK_EVERY", 0.0)
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "runs") as found:
        yield found


class serving:
    def __init__(self, root: Path):
        self.server = Server("127.0.0.1", 0, root)

    def __enter__(self) -> Ask:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self.ask

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        self.headers = dict(answer.getheaders())
        found = answer.status, answer.read().decode()
        connection.close()
        return found


@pytest.fixture(scope="module")
def all_of_it(made: Path) -> Iterator[Ask]:
    with serving(made) as found:
        wait_for(lambda: "being computed" not in found("/profiles")[1])
        yield found


def texts(page: str) -> str:
    """What a reader sees of a page."""
    body = page[page.index("</style>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_every_page_shows_what_it_should(all_of_it: Ask) -> None:
    shows = {
        "/": ["1 can not be read", "broken/evaluation.json", "grpo/layer-3-seed-0/test", "7 of 40", "12 of 40", "training"],
        "/curves": ["arithmetic", "grpo full", "gigpo layer:5", "7 of 40 steps"],
        "/profiles": ["tiny: gigpo on arithmetic/test", "middle third", "Qwen3-1.7B-Base, by task and layer (published)", "layer 5"],
        "/profiles?measure=gain&decoding=greedy": ["gain over base in pass@1"],
        "/items": ["160 of 160 items", "item-0", "grpo layer:3"],
        "/run?run=training": ["run, unfinished", "7 of 40", "share solved", "trainer.lr"],
        "/run?run=grpo/layer-3-seed-0": ["run, complete", "grpo/layer-3-seed-0/test", "patch_sha256"],
        "/run?run=broken": ["broken/evaluation.json"],
        "/episodes?run=base": ["800 episodes", "What is 3 + 4?", "<|im_start|>user", "Three and four are"],
        "/episodes?run=going-on": ["12 episodes so far", "answer 0"],
        "/episodes?run=grpo/layer-3-seed-0": ["160 episodes", "advantage 1", "step 0, sample 0"],
    }
    for path, expected in shows.items():
        status, page = all_of_it(path)
        assert status == 200, path
        for text in expected:
            assert text in texts(page), (path, text)


def test_the_figures_are_those_of_the_leaderboard(made: Path, all_of_it: Ask) -> None:
    from onelayer.studies.leaderboard.build import build

    board = build(made)
    entries = [entry for table in board.tables for entry in table.entries if entry.algorithm == "grpo" and entry.directories]
    entry = next(entry for entry in entries if entry.trained_set == "layer:3")
    assert entry.sampled and entry.sampled.contribution and entry.sampled.contribution.point
    _, page = all_of_it("/profiles")
    identity = re.findall(r'href="/profiles\?profile=([0-9a-f]{12})[^"]*">arithmetic/test</a> <span class="quiet">grpo<', page)
    _, page = all_of_it(f"/profiles?profile={identity[0]}")
    low, high = entry.sampled.contribution.interval  # pyright: ignore[reportGeneralTypeIssues]
    assert f"layer 3: {entry.sampled.contribution.point:.2f} [{low:.2f}, {high:.2f}]" in texts(page)


def test_who_solved_what_is_what_the_records_say(made: Path, all_of_it: Ask) -> None:
    table = read_table(made / "base" / SAMPLES).to_pylist()
    rates = {}
    for row in table:
        if row["decoding"] == "sampled":
            rates.setdefault(row["item"], []).append(row["verdict"] == "correct")
    _, page = all_of_it("/items?q=base&order=easiest")
    cells = re.findall(r'aria-label="(item-\d+), base: (\d+) %"', page)
    assert len(cells) == 100 and all(f"{100 * sum(rates[item]) / 4:.0f}" == rate for item, rate in cells)
    assert [int(rate) for _, rate in cells] == sorted((int(rate) for _, rate in cells), reverse=True)
    _, page = all_of_it("/items?q=base&which=none")
    assert set(re.findall(r'aria-label="(item-\d+), base: 0 %"', page)) == {item for item, found in rates.items() if not any(found)}


def greedy(evaluation: Path) -> np.ndarray:
    """Whether each item's greedy reply is right, as the records have it."""
    return np.array([float(row.correct) for row in read_samples(evaluation / SAMPLES) if row.decoding == "greedy"])


def settled(ask: Ask, path: str) -> str:
    """What a reader sees of a page when all its figures are there."""
    wait_for(lambda: "being computed" not in ask(path)[1])
    return texts(ask(path)[1])


def test_the_best_layer_is_chosen_on_other_items_and_seeds_than_it_is_reported_on(made: Path, all_of_it: Ask) -> None:
    rate = {(name, seed): greedy(made / "gigpo" / f"{name}-seed-{seed}" / "test") for name in ["full", *LAYERS] for seed in (0, 1)}
    chooses = np.random.default_rng(0).permutation(ITEMS) < ITEMS // 2
    best = max(range(6), key=lambda layer: rate[f"layer-{layer}", 0][chooses].mean())
    base, full, layer = (one[~chooses].mean() for one in (greedy(made / "base"), rate["full", 1], rate[f"layer-{best}", 1]))
    page = settled(all_of_it, "/profiles?decoding=greedy&measure=gain")
    said = page[page.index("Best layer: ") :]
    assert said.startswith(
        f"Best layer: layer {best}, chosen on one half of the items and training seed 0. On the other half and training seed 1,"
    )
    for figure in (
        f"C(k) {(layer - base) / (full - base):.2f} [",
        f"minus base {layer - base:+.3f} \u00b1",
        f"minus full {layer - full:+.3f} \u00b1",
    ):
        assert figure in said.partition("(95% over items).")[0]


def test_how_far_profiles_agree_is_told_of_their_pass_rates(made: Path, all_of_it: Ask) -> None:
    gigpo, grpo = (
        np.array([[greedy(made / algorithm / f"{layer}-seed-{seed}" / "test") for seed in (0, 1)] for layer in LAYERS])
        for algorithm in ("gigpo", "grpo")
    )
    measured = np.corrcoef(*(stats.rankdata(one.mean(axis=(1, 2))) for one in (gigpo, grpo)))[0, 1]
    true = profile_agreement(gigpo, grpo, same_items=True)
    row = "gigpo on arithmetic/test and grpo on arithmetic/test 6"
    for one in (true[Coefficient.SPEARMAN], true[Coefficient.PEARSON]):
        row += f" {one.measured:.2f} {one.corrected:.2f} [{one.low:.2f}, {one.high:.2f}]"
    assert true[Coefficient.SPEARMAN].measured == pytest.approx(measured)
    assert measured < 1 and row in settled(all_of_it, "/profiles?decoding=greedy")


def test_what_a_profile_lacks_is_said(ask: Ask, tmp_path: Path) -> None:
    for algorithm in ("grpo", "gigpo"):
        for layer in (1, 2):
            run = tmp_path / "runs" / f"{algorithm}-{layer}"
            make_run(run, 0.5, trained_set=f"layer:{layer}", config={"algorithm": algorithm}, layers=None)
    page = settled(ask, "/profiles")
    assert "How many layers tiny has is not known here: the middle third is of those up to the highest trained." in page
    assert "Best layer: none, since it takes the base, and one full-parameter run of this training." in page
    assert "How far two profiles agree is told from six layers on that both have." in page


def test_the_middle_third_is_that_of_the_models_layers(ask: Ask, tmp_path: Path) -> None:
    for layer in (1, 3, 4, 7, 8):
        make_run(tmp_path / "runs" / f"layer-{layer}", 0.5, trained_set=f"layer:{layer}", layers=12)
    page = settled(ask, "/profiles")
    assert re.findall(r"layer (\d+) middle third", page) == ["4", "7"] and "not known here" not in page


def answered(run: Path, solved: list[int], answer: str | None = "right") -> None:
    """Every reply of the run's evaluation is right on these fourths of the items; wrong answers are the run's own."""
    rows = read_samples(run / "test" / SAMPLES)
    for at, row in enumerate(rows):
        right = int(row.item.removeprefix("item-")) // 40 in solved
        rows[at] = row.model_copy(update={"verdict": "correct" if right else "wrong", "answer": answer if right else run.name})
    rewrite(run / "test", rows)


def test_what_policies_do_together(ask: Ask, tmp_path: Path) -> None:
    """Any two of three layers share one of the three fourths that they solve, so a vote solves all three; full solves two."""
    for name, solved in {"full": [0, 1], "layer:1": [0, 1], "layer:2": [1, 2], "layer:3": [0, 2]}.items():
        make_run(tmp_path / "runs" / name[-1], 0.5, trained_set=name)
        answered(tmp_path / "runs" / name[-1], solved)
    page = settled(ask, "/items?q=layer")
    assert "0.333 [0.25" in page and "mean Jaccard index over all pairs of 3 policies" in page
    assert "3 replies of grpo full, which differ by chance: 1.000 [" in page
    theirs = r"0\.500 \[0\.42\d, 0\.57\d\] by that of 3 replies of grpo full \(maj@3\)"
    ours = r"0\.750 \[0\.67\d, 0\.81\d\] of the items solved by the majority of one reply of each of 3 single-layer policies"
    assert re.search(rf"{ours}, {theirs}\. The difference is \+0\.250 \u00b1 0\.068, p < 0\.001\.", page)
    assert f"{(1 + 5 / 3) / 6:.3f} [" in settled(ask, "/items"), "full is one of those shown: 1 with layer 1, 1/3 with the others"
    assert "votes are over sampled replies" in settled(ask, "/items?decoding=greedy")
    assert "it takes two policies" in settled(ask, "/items?q=layer:1")
    make_run(tmp_path / "runs" / "turns", 0.9, trained_set="layer:4", env={"max_turns": 2})
    apart = r"mean Jaccard index over all pairs of 3 policies.*Left out: 1, measured under another protocol than grpo full\."
    wait_for(lambda: re.search(apart, texts(ask("/items?q=layer")[1])))
    shutil.rmtree(tmp_path / "runs" / "turns")
    answered(tmp_path / "runs" / "1", [0, 1], answer=None)
    wait_for(lambda: "there is nothing to vote on: the environment names no answers" in texts(ask("/items?q=layer")[1]))
    for layer in (4, 5):
        make_run(tmp_path / "runs" / str(layer), 0.5, trained_set=f"layer:{layer}")
    lacking = "a reply of each of 5 policies stands against 5 replies of grpo full, which has 4; name fewer policies"
    wait_for(lambda: lacking in texts(ask("/items?q=layer")[1]))


def test_pages_filters_and_permalinks_lead_to_the_episodes_of_the_file(made: Path, all_of_it: Ask) -> None:
    rows = read_samples(made / "base" / SAMPLES)
    seen = []
    for page in range(1, 17):
        seen += re.findall(r'<span class="id">([^<]*)</span>', all_of_it(f"/episodes?run=base&page={page}")[1])
    assert seen == [row.item for row in rows]
    for item, alike in (("item-1", lambda name: name == "item-1"), ("TEM-1", lambda name: "tem-1" in name)):
        expected = [row for row in rows if row.verdict == "wrong" and row.decoding == "sampled" and alike(row.item)]
        _, text = all_of_it(f"/episodes?run=base&part=sampled&verdict=wrong&item={item}")
        assert f"{len(expected)} of 800 episodes" in texts(text)
    for row in (rows[0], rows[333], rows[-1]):
        _, text = all_of_it(url("episodes", run="base", open=f"{row.decoding}/{row.sample}/{row.item}"))
        assert f"<h2>{row.item} " in text and row.steps[0].response in html.unescape(text)
    assert all_of_it("/episodes?run=base&open=greedy/7/item-0")[0] == 404


def test_training_episodes_show_the_advantages_and_prompts_when_asked_for(all_of_it: Ask) -> None:
    address = url("episodes", run="grpo/layer-3-seed-0", part="30", verdict="wrong", open="30/3/train-30")
    _, page = all_of_it(address)
    assert "Turn 3 of 3 reward 2 advantage \u22121" in texts(page) and "2 of 160 episodes" in texts(page)
    assert "<|im_start|>" not in texts(page)
    _, page = all_of_it(address + "&prompts=1")
    assert texts(page).count("<|im_start|>user") == 3


@pytest.mark.parametrize("text", viewed.HOSTILE)
def test_texts_of_models_stay_text(text: str, all_of_it: Ask) -> None:
    at = viewed.HOSTILE.index(text)
    _, page = all_of_it(url("episodes", run="hostile", open=f"greedy/0/item {at} {text}"))
    body = page[page.index("<body>") :]
    for name, count in {"script": 1, "style": 0, "h1": 1, "img": 0, "b": 0}.items():
        assert len(re.findall(rf"<{name}[\s>]", body)) == count, name
    assert not re.search(r"\son\w+=", re.sub(r'"[^"]*"|>[^<]*<', "", body))
    assert shown(text) in html.unescape(body)
    assert not re.search("[\x00\x1b\x07\u202e\U000e0041]", page)
    if "\x1b" in text:
        assert "\\x1b[31mred\\x1b]0;owned\\x07 \\u202eDLROW\\u202c \\x00 \\U000e0041" in page


@given(st.text())
def test_shown_text_has_nothing_unseen_and_is_otherwise_the_same(text: str) -> None:
    found = shown(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found)
    if all(character.isprintable() or character == "\n" for character in text):
        assert found == text
    found.encode()


ESCAPES = ["../secret", "..", "/etc", "base/../../secret", "%2e%2e/secret", "base\x00", ".", "", "grpo", "link", "C:\\", "a" * 5000]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("page", ["run", "episodes"])
def test_no_name_leads_out_of_the_directory(page: str, name: str, ask: Ask, tmp_path: Path) -> None:
    make_evaluation(tmp_path / "secret", outcomes(0.5, 1, items=4))
    make_evaluation(tmp_path / "runs" / "base", outcomes(0.5, 1, items=4))
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    assert ask(f"/{page}?run=base")[0] == 200
    status, text = ask(f"/{page}?run={quote(name)}")
    assert status == 404 and "there is no such run here" in text
    assert "secret" not in texts(ask("/")[1])


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../view.js", "/view.js/..", "/templates/view.html.j2", "/run/base", "/%00", "/episodes/"]
)
def test_no_file_is_served_by_its_path(path: str, all_of_it: Ask) -> None:
    assert all_of_it(path)[0] == 404


def test_methods_that_change_things_are_refused(all_of_it: Ask) -> None:
    assert {all_of_it("/", method)[0] for method in ("POST", "PUT", "DELETE", "PATCH")} == {501}
    assert all_of_it("/", "HEAD") == (200, "")
    assert all_of_it("/?" + "a=1&" * 200)[0] == 400


HOSTS = {"127.0.0.1": True, "localhost:9000": True, "[::1]:8612": True, "192.168.1.7:80": True, "127.0.0.1.": True}
HOSTS |= {"evil.example": False, "evil.example:8612": False, "localhost.evil.example": False, "": False, "127.0.0.1@evil.example": False}
HOSTS |= {"127.0.0.1.nip.example": False, "a b": False, "[evil]": False}


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_is_not_this_machine_is_refused(host: str, all_of_it: Ask) -> None:
    assert all_of_it("/", Host=host)[0] == (200 if HOSTS[host] else 403)


def test_a_real_run_and_its_evaluation_are_shown(ask: Ask, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "layer"
    words = ["trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]
    assert main(["train", "quickstart", *words, "--output", str(run)]) == 0
    patch = ["--patch", str(run / "patch.safetensors"), "--output", str(run / "test")]
    assert main(["eval", "--suite", "arithmetic", "--items", "4", "--n", "2", *patch]) == 0
    assert "layer:3 on arithmetic" in texts(ask("/")[1]) and "seed 0" in texts(ask("/curves")[1])
    _, page = ask("/episodes?run=layer&part=1")
    assert "4 of 8 episodes" in texts(page) and re.search(r"advantage (none|[\d.\u2212]+)", texts(page))
    for row in read_samples(run / "test" / SAMPLES):
        _, page = ask(url("episodes", run="layer/test", open=f"{row.decoding}/{row.sample}/{row.item}"))
        said = re.findall(r'<div class="text[^"]*">([^<]*)</div>', page)
        assert [html.unescape(text) for text in said[:3]] == [
            shown(getattr(row.steps[0], name)) for name in ("observation", "prompt", "response")
        ]


def test_the_policy_lets_nothing_in_and_nothing_out(made: Path) -> None:
    server = serving(made)
    with server as ask:
        for path in ("/", "/episodes?run=hostile", "/nope"):
            _, page = ask(path)
            policy = server.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy
            assert server.headers["X-Content-Type-Options"] == "nosniff"
            outside = [link for link in re.findall(r'(?:href|src|action)="([^"]*)"', page) if not re.match(r"/(?!/)|data:,$", link)]
            assert outside == []
        _, page = ask("/")
        tag = server.headers["ETag"]
        assert ask("/", If_None_Match=tag) == (304, "")


def test_runs_appear_grow_break_and_vanish(ask: Ask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert "Nothing here yet" in ask("/")[1] and "has done a step yet" in texts(ask("/curves")[1])
    assert "No model here has two layers" in texts(ask("/profiles")[1]) and "Nothing has been measured" in texts(ask("/items")[1])
    run = viewed.training(root / "run", 3)
    assert "3 of 40" in texts(ask("/")[1])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    assert "3 of 40" in texts(ask("/curves")[1]) and "No episodes here" in texts(ask("/episodes?run=run")[1])
    viewed.metrics(run, 5)
    viewed.kept_episodes(run, 0, 1)
    assert "5 of 40" in texts(ask("/curves")[1]) and "8 episodes so far" in texts(ask("/episodes?run=run")[1])
    viewed.kept_episodes(run, 2, 3)
    assert "16 episodes" in texts(ask("/episodes?run=run")[1])
    (run / "metrics.jsonl").write_text("nonsense\n")
    assert "run/metrics.jsonl:1: not the metrics" in texts(ask("/curves")[1])
    (run / "episodes" / "000002-000003.parquet").write_bytes(b"PAR1")
    assert "run/episodes/000002-000003.parquet: cannot be read" in texts(ask("/episodes?run=run")[1])
    shutil.rmtree(run)
    assert ask("/run?run=run")[0] == ask("/episodes?run=run")[0] == 404
    assert "Nothing here yet" in ask("/")[1]


NONSENSE = [
    "",
    "null",
    "[1, 2]",
    "trainer: 3\nenv: [x]\n",
    "trainer: {steps: x, seed: {}, prompts_per_step: x}\nenv: {suite: []}\n",
    "\x00",
    "a: &a [*a]",
]


@pytest.mark.parametrize("recipe", NONSENSE)
def test_a_run_of_nonsense_leaves_the_others_as_they_are(recipe: str, ask: Ask, tmp_path: Path) -> None:
    viewed.training(tmp_path / "runs" / "good", 3)
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    (bad / "config.yaml").write_text(recipe)
    line = '{"step": 0, "reward": NaN, "success": 1e999, "kl": "x", "entropy": [1], "tokens": 1, "rollout_seconds": 1, "update_seconds": 1}'
    (bad / "metrics.jsonl").write_text(line + "\n")
    for path in ("/", "/curves", "/curves?y=kl", "/run?run=bad", "/episodes?run=bad", "/profiles", "/items"):
        status, page = ask(path)
        assert status == 200 and not re.search(r'="[^"]*\b(nan|inf)%?"', page), path
    assert "3 of 40 steps" in texts(ask("/curves")[1])


def test_an_evaluation_is_followed_from_its_journal_to_its_end(ask: Ask, tmp_path: Path) -> None:
    going = viewed.unfinished(tmp_path / "runs" / "going", 3)
    assert "3 of 40" in texts(ask("/")[1]) and "layer:3 on arithmetic/test" in texts(ask("/")[1])
    viewed.more(going, 3, 2)
    _, page = ask("/episodes?run=going&open=sampled/0/item-4")
    assert "5 episodes so far" in texts(page) and "answer 4" in texts(page)
    make_evaluation(going, outcomes(0.5, 1, items=5))
    assert "25 episodes" in texts(ask("/episodes?run=going")[1]), "samples that are in both count once"
    (going / "journal.jsonl").unlink()
    assert "25 episodes" in texts(ask("/episodes?run=going")[1])
    os.truncate(going / SAMPLES, 100)
    assert "1 can not be read" in texts(ask("/")[1])
    assert "going/samples.parquet: cannot be read" in texts(ask("/episodes?run=going")[1])


def test_figures_follow_new_evaluations(ask: Ask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    make_evaluation(root / "base", outcomes(0.3, 1))
    make_run(root / "full", 0.6, trained_set="full")
    for layer in (1, 2):
        make_run(root / f"layer-{layer}", 0.5, trained_set=f"layer:{layer}")
    ask("/profiles")
    wait_for(lambda: "layer 2" in texts(ask("/profiles")[1]))
    assert "layer 4" not in texts(ask("/profiles")[1]).partition("published")[0]
    make_run(root / "layer-4", 0.5, trained_set="layer:4")
    wait_for(lambda: "layer 4:" in texts(ask("/profiles")[1]) or "layer 4 " in texts(ask("/profiles")[1]).partition("Figures")[2])


def wait_for(seen: Callable[[], object]) -> None:
    for _ in range(2400):
        if seen():
            return
        threading.Event().wait(0.05)
    raise AssertionError("never seen")


def test_a_page_that_fails_says_so_and_the_server_goes_on(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onelayer.pages.viewer import pages

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(pages.item_matrix, "matrix", fail)
    monkeypatch.setattr(pages, "page_of", fail)
    assert ask("/")[0] == ask("/")[0] == 500
    assert capsys.readouterr().err.count("RuntimeError: a defect") == 1
    assert ask("/curves")[0] == 200


def test_what_can_not_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", str(tmp_path), "--port", str(port)]) == 2
        assert f"127.0.0.1:{port}: the port is taken" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--port", "70000"]) == 2
    capsys.readouterr()
    with pytest.raises(UserError, match="not an address of this machine"):
        Server("203.0.113.1", 0, tmp_path)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.booleans())
def test_an_axis_holds_its_values_and_its_ticks(values: list[float], zero: bool) -> None:
    found = axis(values, zero=zero)
    room = (found.high - found.low) * 1e-6
    assert all(found.low - room <= value <= found.high + room for value in [*values, *([0.0] if zero else [])])
    assert 2 <= len(found.ticks) <= 13 and len({label for label, _ in found.ticks}) == len(found.ticks)
    assert all(-0.001 <= place <= 100.001 for _, place in found.ticks)


def test_the_script_is_served_and_is_one_file(all_of_it: Ask) -> None:
    status, script = all_of_it("/view.js")
    assert status == 200 and '"use strict"' in script
    assert not re.search(r"innerHTML\s*=[^=]|eval\(|https?:|new Function|document\.write", script)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_directory_that_cannot_be_read_is_an_entry_among_others(name: str, ask: Ask, tmp_path: Path) -> None:
    make_evaluation(tmp_path / "runs" / "good", outcomes(0.5, 1, items=4))
    for number, text in enumerate(HOSTILE[name]):
        (folder := tmp_path / "runs" / f"hostile-{number}").mkdir()
        if name == "run.json":
            (folder / "config.yaml").write_text("")
        os.mkfifo(folder / name) if text is None else (folder / name).write_text(text)
    code, page = ask("/")
    assert code == 200 and "good" in page and all(f"hostile-{number}" in page for number in range(len(HOSTILE[name])))
    for number in range(len(HOSTILE[name])):
        assert ask(f"/run?run=hostile-{number}")[0] == 200
        assert ask(f"/episodes?run=hostile-{number}")[0] in (200, 404)
    assert ask("/")[0] == 200
