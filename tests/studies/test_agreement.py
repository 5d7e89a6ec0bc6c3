"""How far the profiles of two studies agree, from made-up runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import make_evaluation, make_run, outcomes

from onelayer.common.errors import UserError
from onelayer.studies.agreement import agreement, check_has_profile

RISING = [0.3, 0.36, 0.42, 0.48, 0.54, 0.6]


def made_study(directory: Path, rates: list[float], seeds: int = 2, **fields: Any) -> Path:
    """A study of single layers with these pass rates."""
    make_evaluation(directory / "base", outcomes(0.3, 1))
    for layer, rate in enumerate(rates):
        for seed in range(seeds):
            run = directory / f"layer-{layer}" / f"lr-0.0003-seed-{seed}"
            make_run(run, rate, trained_set=f"layer:{layer}", seed=seed, config={"steps": 1}, **fields)
            (run / "metrics.jsonl").write_text('{"step": 0, "reward": 0.5}\n')
            (run / "config.yaml").touch()
    names = ", ".join(f"'layer:{layer}'" for layer in range(len(rates)))
    (directory / "study.yaml").write_text(f"study: {{trained_sets: [{names}]}}\n")
    return directory


def test_profiles_that_rise_alike_agree_and_opposite_ones_do_not(tmp_path: Path) -> None:
    mine = made_study(tmp_path / "math", RISING)
    alike = agreement(mine, made_study(tmp_path / "code", RISING, digest="c" * 64, split="code/test"))
    assert (alike.layers, alike.same_items, alike.split) == (list(range(6)), False, "code/test")
    assert alike.spearman.measured > 0.8 and alike.pearson.measured > 0.9 and alike.spearman.high > 0.9
    opposite = agreement(mine, made_study(tmp_path / "other", RISING[::-1], seeds=1))
    assert opposite.same_items and opposite.spearman.measured < -0.8 and opposite.spearman.high < 0.5


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    mine = made_study(tmp_path / "mine", RISING)
    with pytest.raises(UserError, match="name a study of the same base"):
        agreement(mine, made_study(tmp_path / "base", RISING, base="0" * 64))
    with pytest.raises(UserError, match=r"few: the agreement .* 6 layers"):
        agreement(mine, made_study(tmp_path / "few", RISING[:3]))
    with pytest.raises(UserError, match=r"no study, it has no study\.yaml"):
        check_has_profile(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no single layer of this study has been evaluated"):
        agreement(mine, made_study(tmp_path / "none", []))
