"""Replies cut at a limit are what that limit samples, verdict by verdict, and what cannot be cut is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.commands import message

from onelayer.cli.main import main
from onelayer.evals.cutting import limits_of
from onelayer.evals.records import read_evaluation
from onelayer.evals.samples import SAMPLES
from onelayer.studies.store import scan

EVAL = ["eval", "--suite", "arithmetic", "--items", "24", "--n", "3", "--quiet"]
MADE = ("cost", "hardware", "finished", "versions", "git_commit")


@pytest.mark.parametrize("keys", [[], ["agent.stop=['=']", "eval.top_k=3"], ["pool.workers=1", "model.dtype=bfloat16"]])
def test_a_cut_evaluation_is_the_evaluation_at_that_limit(tmp_path: Path, keys: list[str]) -> None:
    """To the byte: tokens, texts, verdicts, keys and seeds."""
    for limit in (40, 20, 4):
        assert main([*EVAL, *keys, f"agent.max_tokens={limit}", "--output", str(tmp_path / str(limit))]) == 0
    assert main(["grade", "cut", str(tmp_path / "40"), "--limits", "20,4"]) == 0
    assert limits_of(tmp_path / "40") == [4, 20]
    for limit in (20, 4):
        cut, sampled = tmp_path / "40" / "limits" / str(limit), tmp_path / str(limit)
        assert (cut / SAMPLES).read_bytes() == (sampled / SAMPLES).read_bytes()
        made, direct = (read_evaluation(place).manifest.model_dump(exclude=set(MADE)) for place in (cut, sampled))
        assert made == direct
    assert read_evaluation(tmp_path / "4").manifest.sampled.truncated  # some were cut


def test_more_samples_are_cut_too_and_cut_ones_are_no_samples_of_their_own(tmp_path: Path) -> None:
    place = tmp_path / "base"
    cut = ["grade", "cut", str(tmp_path), "--limits", "12"]
    assert main([*EVAL, "--output", str(place)]) == main(cut) == 0
    before = (place / "limits" / "12" / SAMPLES).stat().st_mtime_ns
    assert main(cut) == 0 and (place / "limits" / "12" / SAMPLES).stat().st_mtime_ns == before
    assert main([*EVAL, "--n", "5", "--output", str(place)]) == main(cut) == 0
    assert read_evaluation(place / "limits" / "12").manifest.sampled.samples == 5
    assert [entry.directory for entry in scan(tmp_path)] == [place]


def test_what_cannot_be_cut_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*EVAL, "--output", str(tmp_path / "base")]) == 0
    assert main([*EVAL, "env.max_turns=2", "--output", str(tmp_path / "turns")]) == 0
    assert main([*EVAL, "--baseline", "gold", "--output", str(tmp_path / "rule")]) == 0
    capsys.readouterr()
    for place, limits, said in (
        ("base", "40", "sampled with up to 40 tokens"),
        ("base", "none", "numbers of tokens"),
        ("base", "0", "numbers of tokens"),
        ("turns", "8", "several turns"),
        ("rule", "8", "hold no tokens"),
        ("nowhere", "8", "no complete evaluation"),
    ):
        assert main(["grade", "cut", str(tmp_path / place), "--limits", limits]) == 2
        assert said in message(capsys.readouterr().err)
    study = ["study", "quickstart", "--output", str(tmp_path / "study")]
    for keys, said in ((["study.limits=[40]"], "raise eval.max_tokens"), (["study.limits=[8]", "env.max_turns=2"], "one turn")):
        assert main([*study, *keys]) == 2
        assert said in message(capsys.readouterr().err) and not (tmp_path / "study").exists()


def test_a_study_has_every_figure_at_every_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gain and its part by length are those of the evaluations, and the limit of evaluations is not that of training."""
    words = ["study", "quickstart", "trainer.steps=2", "trainer.prompts_per_step=4", "trainer.group_size=4", "eval.items=24", "eval.n=2"]
    words += ["study.trained_sets=[layer:1]", "study.seeds=[0,1]", "study.lr_grid=[1e-3]", "study.base_samples=2", "eval.every=2"]
    words += ["study.limits=[16]", "agent.max_tokens=28", "eval.max_tokens=32", "eval.panel_items=8", "--output", str(tmp_path), "--quiet"]
    assert main(words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [limit["max_tokens"] for limit in report["limits"]] == [16, 32] and report["max_tokens"] == 32
    base, full, layer = report["arms"]
    for decoding in ("sampled", "greedy"):
        low, high = ({arm["name"]: arm for arm in limit[decoding]} for limit in report["limits"])
        for arm in (base, full, layer):
            assert high[arm["name"]]["pass_rate"] == arm[decoding]["pass_rate"]
            assert high[arm["name"]]["contribution"] == arm[decoding]["contribution"]
        for name in ("full", "layer:1"):
            gains = [at[name]["pass_rate"]["mean"] - at["base"]["pass_rate"]["mean"] for at in (low, high)]
            assert low[name]["to_base"]["difference"] == pytest.approx(gains[0])
            assert low[name]["by_length"]["difference"] == pytest.approx(gains[0] - gains[1])
        assert low["base"]["mean_tokens"] < high["base"]["mean_tokens"] and low["base"]["truncated"] > high["base"]["truncated"]
        direct = [read_evaluation(path).manifest for path in sorted(tmp_path.glob("layer-1/*/test/limits/16"))]
        assert low["layer:1"]["by_seed"] == pytest.approx([one.model_dump()[decoding]["pass_rate"]["mean"] for one in direct])
    assert any(warning.startswith("base, sampled: ") and "raise" in warning for warning in report["warnings"])
    page = (tmp_path / "report.html").read_text()
    assert 'id="limits"' in page and "Limits of tokens, greedy" in page
    run = next(tmp_path.glob("full/*"))
    assert "max_tokens: 28" in (run / "config.yaml").read_text()


def test_the_length_of_replies_is_under_control_where_hardly_one_is_cut(tmp_path: Path) -> None:
    from onelayer.studies.limits import length_warning

    assert length_warning(0.02, 40) is None and length_warning(None, 40) is None
    assert "raise eval.max_tokens" in str(length_warning(0.021, 40))
