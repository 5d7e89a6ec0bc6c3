"""Published math data sets: small invented files under the columns that each is published with. What is read, what is skipped, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onelayer.envs import FieldMapping, MathConfig, UserError, load, make, parse_suite
from onelayer.envs.items import Item
from onelayer.envs.math import sources
from onelayer.envs.math.env import grade_item
from onelayer.envs.math.grader import Verdict


def suite(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: list[dict[str, Any]]) -> tuple[dict[str, Item], dict[str, str]]:
    """The items and the skipped ones, by number or own id, of a built-in suite whose file holds these rows."""
    monkeypatch.setenv("ONELAYER_DATA", str(folder))
    config = parse_suite(name)
    file = folder / name.partition("/")[0] / f"{config[1]}.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sources, "TRAINING_FILE", {"train": range(10)})  # a file this small is not divided
    found = load(*config)
    skipped = {one.id.rpartition("/")[2]: one.reason for one in found.skipped}
    return {item.id.rpartition("/")[2]: item for item in found.items}, skipped


def right(item: Item, *answers: str) -> bool:
    return all(grade_item(f"\\boxed{{{answer}}}", item) is Verdict.CORRECT for answer in answers)


def wrong(item: Item, *answers: str) -> bool:
    return all(grade_item(f"\\boxed{{{answer}}}", item) is not Verdict.CORRECT for answer in answers)


def test_olympiadbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: README.md of github.com/OpenBMB/OlympiadBench ("The data format for all datasets is as follows") with what the card of
    Hothan/OlympiadBench adds (modality, question_type ...). Several answers, tolerance and what it is not for: inference/judge.py there;
    the unit does not stand in the answer, several are "connected with commas": inference/code/evaluators/evaluator.py.
    """
    base = {
        "subfield": "Algebra",
        "context": None,
        "solution": ["So."],
        "is_multiple_answer": False,
        "unit": None,
        "answer_type": "Numerical",
    }
    base |= {"error": None, "modality": "Text-only", "question_type": "Open-ended"}
    rows = [
        {"id": 11, "question": "Half?", "final_answer": ["$\\frac{1}{2}$"]},
        {"id": 12, "question": "Both roots?", "final_answer": ["$3$,$-4$"], "is_multiple_answer": True},
        {"id": 13, "question": "Both again?", "final_answer": ["3", "-4"], "is_multiple_answer": True},
        {"id": 14, "question": "Pairs?", "final_answer": ["$(1,2), (2,1)$"], "is_multiple_answer": True, "answer_type": "Tuple"},
        {"id": 15, "question": "How far?", "final_answer": ["4.2"], "unit": "$km$", "error": "1e-1"},
        {"id": 16, "question": "How long?", "final_answer": ["45"], "unit": "minutes", "context": "A train leaves."},
        {"id": 21, "question": "Prove it.", "final_answer": None, "question_type": "Theorem proof"},
        {"id": 22, "question": "In <image_1>, how long is AB?", "final_answer": ["2"], "modality": "Multimodal"},
        {"id": 23, "question": "Describe.", "final_answer": ["the set of it"], "answer_type": "Need_human_evaluate"},
        {"id": 24, "question": "Two masses?", "final_answer": ["1.2, 3.4"], "is_multiple_answer": True, "error": "1e-1,1e-2"},
        {"id": 25, "question": "What?", "final_answer": ["$\\frac{1}{$"]},
    ]
    items, skipped = suite(tmp_path, monkeypatch, "olympiadbench", [base | row for row in rows])
    assert skipped == {
        "21": "it asks for a proof",
        "22": "its question needs an image",
        "23": "its answer has to be judged by a person",
        "24": "its tolerance (1e-1,1e-2) is for each of several answers",
        "25": "the gold answer '$\\\\frac{1}{$' cannot be read by the grader",
    }
    assert list(items) == ["11", "12", "13", "14", "15", "16"]
    assert right(items["11"], "1/2")
    for both in (items["12"], items["13"]):
        assert right(both, "3, -4", "-4, 3") and wrong(both, "3", "-4", "3, 4")
    assert right(items["14"], "(1,2), (2,1)") and wrong(items["14"], "(1,2)")
    assert right(items["15"], "4.2", "4.15", "4.3", "4.2km") and wrong(items["15"], "4.31", "4")
    assert items["16"].question == "A train leaves.\n\nHow long?" and right(items["16"], "45", "45 minutes") and wrong(items["16"], "46")


MINERVA = {
    "math-ai/minervamath: question, answer": {"question": "Speed?", "answer": "2.998 \\times 10^8"},
    "evaluation/data/minerva_math/test.jsonl of github.com/QwenLM/Qwen2.5-Math: problem, solution, type, idx": {
        "problem": "Speed?",
        "solution": "It is\n\\[c=\\boxed{2.998 \\times 10^{8}} \\mathrm{~m}\\]",
        "type": "Physics",
        "idx": 0,
    },
    "datasets/evaluation_suite/minerva of github.com/sail-sg/understand-r1-zero: problem, answer (list, each is right)": {
        "problem": "Speed?",
        "answer": ["2.998 \\times 10^{8}\n", "299800000"],
    },
}


@pytest.mark.parametrize("columns", MINERVA)
def test_minerva(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """A number is right within 1e-4 of the gold: numeric_equal in understand_r1_zero/math_grader.py and in evaluation/grader.py of
    Qwen2.5-Math (isclose with rel_tol=1e-4)."""
    items, skipped = suite(tmp_path, monkeypatch, "minerva", [MINERVA[columns], MINERVA[columns] | {"answer": "", "solution": ""}])
    assert list(skipped.values()) == ["the answer is empty"]
    assert right(items["1"], "2.998 \\times 10^8", "299800000", "2.9979 \\times 10^8")
    assert wrong(items["1"], "2.99 \\times 10^8", "2.9975 \\times 10^8", "3")


def test_amc_and_aime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: evaluation/data/amc23 and aime24 of github.com/QwenLM/Qwen2.5-Math, the card of HuggingFaceH4/aime_2024."""
    amc = {"id": 7, "problem": "Miles?", "answer": 27.0, "url": "https://example.org", "question": "Miles?"}
    items, skipped = suite(tmp_path / "amc", monkeypatch, "amc23", [amc])
    assert right(items["7"], "27", "27.0") and items["7"].gold == "27" and not skipped
    aime = {
        "id": 60,
        "problem": "Minutes?",
        "solution": "so $\\framebox{204}$",
        "answer": "204",
        "url": "https://example.org",
        "year": "2024",
    }
    items, skipped = suite(tmp_path / "aime", monkeypatch, "aime24", [aime])
    assert right(items["1"], "204") and not skipped


def test_numinamath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: dataset_info on the card of AI-MO/NuminaMath-CoT: source, problem, solution, messages. The solutions hold the answers."""
    asked = {
        "Solve $x+1=3$.": "We get $x = \\boxed{2}$.",
        "Find both.": "They are $\\boxed{1}$ and $\\boxed{2}$.",
        "Find it; check.": "First $\\boxed{0.5}$,\nand so\n\\[\\boxed{\\frac{1}{2}}\\]",
        "(1) Find $a$. (2) Find $b$ when $f(1) = 2$.": "(1) It is $3$.\n(2) So $b = \\boxed{7}$.",
        "Find $n$ such that (i) $n$ is odd and (ii) $n$ is a square above 1, below 16.": "$\\boxed{9}$",
        "Find $a$ and then $b$.": "So $a=\\boxed{3}$.\nThen $b=\\boxed{7}$.",
        "Prove that $a^2+b^2 \\ge 2ab$.": "As $(a-b)^2 \\ge 0$, \\boxed{a^2+b^2 \\ge 2ab}.",
        "Show that it is so.": "It is so.",
        "How many apples?": "\\boxed{9 (apples)}",
    }
    rows = [{"source": "cn_k12", "problem": p, "solution": s, "messages": [{"role": "user", "content": p}]} for p, s in asked.items()]
    items, skipped = suite(tmp_path, monkeypatch, "numinamath", rows)
    assert skipped == {
        "4": "it asks for several parts, and one answer is in a box",
        "6": "its solution boxes different answers: 3, then 7",
        "7": "it asks for a proof",
        "8": "its solution has no answer in a box (where the column is the answer itself, set env.fields.answer=solution)",
    }
    assert {number: item.gold for number, item in items.items()} == {"1": "2", "2": "1, 2", "3": "0.5", "5": "9", "9": "9"}
    assert right(items["9"], "9", "9 (apples)", "9 apples", "9\\text{ apples}") and wrong(items["9"], "8")


def test_numinamath_1_5(tmp_path: Path) -> None:
    """Columns: dataset_info on the card of AI-MO/NuminaMath-1.5; `proof` and `notfound` stand in place of an answer there, and a row may be
    marked as a proof while it has one (documentation of nemo_rl's numinamath data set)."""
    base = {
        "solution": "So.",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
        "synthetic": False,
    }
    answers = [("1?", "4", "math-word-problem"), ("2?", "proof", "math-word-problem"), ("3?", "notfound", "MCQ"), ("4?", "5", "proof")]
    rows = [base | {"problem": problem, "answer": answer, "question_type": kind} for problem, answer, kind in answers]
    file = tmp_path / "numina.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = load(MathConfig(suite=str(file)), "all")
    assert [item.gold for item in split.items] == ["4"]
    assert [one.reason for one in split.skipped] == ["it asks for a proof", "the answer is empty", "it asks for a proof"]


def test_deepscaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: problem, answer, solution (dataset_info of the copies of agentica-org/DeepScaleR-Preview-Dataset); some of its rows have no
    answer (its discussion 4)."""
    rows = [{"problem": "1?", "answer": "\\frac{3}{4}", "solution": "so \\boxed{1}"}, {"problem": "2?", "answer": "", "solution": ""}]
    items, skipped = suite(tmp_path, monkeypatch, "deepscaler/train", rows)
    assert right(items["1"], "0.75") and skipped == {"2": "the answer is empty"}


def test_math(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: problem, level, solution, type (dataset_info of the copies of DigitalLearningGmbH/MATH-lighteval)."""
    row = {"problem": "Roots?", "level": "Level 2", "solution": "They are $\\boxed{1}$ and $\\boxed{3}$.", "type": "Algebra"}
    items, skipped = suite(tmp_path, monkeypatch, "math/train", [row])
    assert items["1"].meta == {"level": "Level 2", "type": "Algebra"} and right(items["1"], "3, 1") and not skipped


def test_skywork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns: dataset_info on the card of Skywork/Skywork-OR1-RL-Data; the ground truth is a list as JSON
    (download_and_filter_data_1p5b.py of github.com/SkyworkAI/Skywork-OR1), each of which is right
    (verl/utils/reward_score/deepscaler_math/math_reward.py)."""
    ending = " Please reason step by step, and put your final answer within \\boxed{}."

    def row(question: str, truth: str) -> dict[str, Any]:
        extra = {"index": 0, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-1.5B": 3}}
        prompt = [{"content": question + ending, "role": "user"}]
        return {
            "data_source": "train-math",
            "prompt": prompt,
            "ability": "math",
            "reward_model": {"ground_truth": truth, "style": "rule"},
            "extra_info": extra,
        }

    rows = [row("One?", '["10", "$x^2$"]'), row("Two?", '["\\\\frac{1}{"]'), row("Three?", "[1,2]"), row("Four?", '["", "5"]')]
    items, skipped = suite(tmp_path, monkeypatch, "skywork/train", rows)
    assert (items["1"].question, right(items["1"], "10", "x^2"), wrong(items["1"], "11", "10, x^2")) == ("One?", True, True)
    assert (items["3"].gold, items["4"].gold) == ("[1,2]", "5")
    assert list(skipped) == ["2"]


def test_a_list_in_a_file_of_ones_own_says_what_it_means(tmp_path: Path) -> None:
    file = tmp_path / "lists.jsonl"
    file.write_text('{"question": "1?", "answer": ["1", "2"]}\n')
    with pytest.raises(UserError, match=r"lists.jsonl:1: 'answer' is a list.*env.fields.several"):
        load(MathConfig(suite=str(file)), "all")
    every = load(MathConfig(suite=str(file), fields=FieldMapping(several="all")), "all").items[0]
    each = load(MathConfig(suite=str(file), fields=FieldMapping(several="any")), "all").items[0]
    assert right(every, "2, 1") and wrong(every, "1") and right(each, "1", "2") and wrong(each, "1, 2")


def test_units_and_tolerances_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "1?", "answer": 9.81, "in": "m/s^2", "within": 0.05}\n')
    fields = FieldMapping(unit="in", precision="within")
    (item,) = load(MathConfig(suite=str(file), fields=fields), "all").items
    assert right(item, "9.8", "9.81m/s^2") and wrong(item, "9.9")
    env = make(MathConfig(suite=str(file), fields=fields), "all")
    env.reset(options={"item": item.id})
    assert env.step("\\boxed{9.8}")[1] == 1.0
