"""What a study's figures come to: from made-up studies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from onelayer.evals.records import Decoding
from onelayer.pages.findings_tables import in_words, solved_sets
from onelayer.studies.profiles import best_layer, jaccard
from onelayer.studies.study_findings import Findings
from onelayer.studies.study_report import ArmRecords, StudyReport, build_report

GAINS = {"base": (0.3, 0.4), "full": (0.7, 0.8), **{f"layer:{layer}": (0.5 + 0.03 * layer, 0.6) for layer in range(6)}}


def report(records: list[ArmRecords], depth: int | None = 6) -> StudyReport:
    for arm in records:
        for recorded in arm.evaluations:
            object.__setattr__(recorded, "manifest", recorded.manifest.model_copy(update={"layers": depth}))
    return build_report(records, recipe="r", model="tiny", parameters=1_900_000, algorithm="grpo", versions={}, seconds=0.0)


def found_in(made: StudyReport) -> Findings:
    assert made.findings
    return made.findings


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_best_layer_is_that_of_the_half_that_reports(arms, seeds):
    records = arms(GAINS, seeds=seeds, items=200)
    found = found_in(report(records))
    rates = {arm.name: arm.rates(Decoding.SAMPLED).rates()[0] for arm in records}
    expected = best_layer(rates["base"][0], rates["full"], np.stack([rates[f"layer:{layer}"] for layer in range(6)]))
    assert found.best and found.best.contribution == expected.contribution
    assert found.best.trained_set == f"layer:{expected.layer}" and found.best.of == 6
    assert (found.best.chosen_by, found.best.reported_by) == (([0], [0]) if seeds == 1 else ([0], [1, 2]))
    assert found.middle and found.middle.layers == (2, 3)
    sure = rates["layer:2"].mean() + rates["layer:3"].mean() - 2 * rates["base"].mean()
    total = sum(rates[f"layer:{layer}"].mean() - rates["base"].mean() for layer in range(6))
    assert found.middle.point == pytest.approx(sure / total)


def test_words_put_the_smallest_difference_first_and_say_what_one_seed_cannot(arms):
    one, three = (report(arms(GAINS, seeds=seeds, items=200)) for seeds in (1, 3))
    words = in_words(one)
    assert list(words) == [
        "minimum detectable difference",
        "best single layer",
        "middle third of the layers",
        "supported statement",
        "not supported",
    ]
    sizes = [arm.sampled.contribution.to_full.detectable for arm in one.arms[2:] if arm.sampled.contribution]
    (told,) = words["minimum detectable difference"]
    assert told.startswith(f"{min(sizes):.3f} (") and f"to {max(sizes):.3f} (" in told
    (quote,) = words["supported statement"]
    assert "for these weights (one training seed)" in quote and f"{one.arm('full').sampled.pass_rate.mean:.3f}" in quote
    assert any("12% of the studies" in text for text in words["not supported"])
    assert "3 training seeds" in in_words(three)["supported statement"][0]
    assert not any("12% of the studies" in text for text in in_words(three)["not supported"])


def test_there_is_no_share_on_few_items_nor_without_a_gain(arms):
    few = report(arms(GAINS, items=30))
    assert all(arm.sampled.contribution.point is None for arm in few.arms[2:] if arm.sampled.contribution)
    assert (
        any("Any C(k). 30 items are too few" in text for text in found_in(few).unsaid)
        and "these figures give no C(k)" in found_in(few).quote
    )
    weak = report(arms({"base": (0.3, 0.4), "full": (0.32, 0.42), "layer:1": (0.31, 0.4)}, items=100))
    assert any(text.startswith("Any C(k) of layer:1. The gain of full is too uncertain") for text in found_in(weak).unsaid)


def test_a_middle_third_needs_layers_all_over_the_model(arms):
    some = report(arms(GAINS, items=60), depth=28)
    assert found_in(some).middle is None and "not evenly spaced over the 28 layers" in in_words(some)["middle third of the layers"][0]
    assert "does not tell how many layers" in found_in(report(arms(GAINS, items=60), depth=None)).no_middle


def test_solved_sets_are_those_of_the_greedy_replies(arms):
    """Greedy replies of the made-up arms solve the easiest items, so those of a weaker arm are among those of a stronger one."""
    made = report(arms({"base": (0.3, 0.4), "full": (0.7, 0.8), "layer:1": (0.6, 0.7)}, seeds=2, items=100))
    found = found_in(made)
    assert {name: (len(one.gained), len(one.lost), one.shared) for name, one in found.solved.items()} == {
        "full": (40, 0, None),
        "layer:1": (30, 0, 30),
    }
    assert set(found.solved["layer:1"].gained) < set(found.solved["full"].gained)
    assert found.solved["layer:1"].overlap == jaccard([[1] * 40 + [0] * 60, [1] * 30 + [0] * 70])
    assert found.full_again and found.full_again.mean == 1
    (table,) = solved_sets(made)
    assert [cell.figure for cell in table.rows[1]] == ["layer:1", "30", "0", "30", "0.750"]
