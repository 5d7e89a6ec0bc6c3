"""The generated games: the same everywhere, kept apart, and winnable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from onelayer.envs import UserError
from onelayer.envs.alfworld import generator, stock
from onelayer.envs.alfworld.game import Game, GameSession
from onelayer.envs.alfworld.sources import SPLITS, load, prove, won_by
from onelayer.envs.config import ALFWorldConfig

pytestmark = pytest.mark.alfworld
CONFIG = ALFWorldConfig(id="onelayer/ALFWorld-v0")
DIGESTS = {
    "train": "9ad3b59e5bc40661b05a39df4a1e2ae9150bc6119355bb17f46b8e64635869bb",
    "validation": "1e6cba002d95a922d25b8efce0143b332c543bb007b88c6fd734c419d56f0911",
    "valid_seen": "f6a331855e6116a2d39265e5bf22ce5eb4bf170431b697134fbedfb74cd79125",
    "valid_unseen": "d002a44644247d9d3c2525ee50a52338933b7cbd1adde6f82540257ec970a6fe",
}
"""Of the default splits. They change only with a new generator, which is then another set of games: say so in the changelog."""


def test_the_default_splits_are_these() -> None:
    assert {split: load(CONFIG, split).digest for split in SPLITS} == DIGESTS
    assert [len(load(CONFIG, split).items) for split in SPLITS] == [512, 128, 128, 128]
    assert load(CONFIG, "test") is load(CONFIG, "valid_unseen")


def test_another_process_with_other_hashes_makes_the_same() -> None:
    program = (
        "from onelayer.envs.alfworld.sources import load; from onelayer.envs.config import ALFWorldConfig; "
        "print(load(ALFWorldConfig(id='onelayer/ALFWorld-v0'), 'valid_seen').digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert said.stdout.strip() == DIGESTS["valid_seen"]


@pytest.mark.parametrize("scene", ["full", "small"])
def test_splits_are_apart(scene: str) -> None:
    sizes = {"train": 1800, "validation": 240, "valid_seen": 240, "valid_unseen": 300}  # more than there are kinds of look_at games
    drawn = {split: generator.draws(split, 3, scene, size) for split, size in sizes.items()}
    everything = [(draw, placed) for some in drawn.values() for draw, placed in some]
    for name in ("ids", "content", "text"):
        of = {"ids": lambda d, p: d.id, "content": lambda d, p: p.key, "text": lambda d, p: generator.digest(generator.game(p))}[name]
        assert len({of(draw, placed) for draw, placed in everything}) == sum(sizes.values()), name
    kinds = {split: {draw.kind for draw, _ in some} for split, some in drawn.items()}
    assert sum(map(len, kinds.values())) == len(set().union(*kinds.values())), "a kind of game belongs to one split"
    scenes = {split: {kind.scene for kind in some} for split, some in kinds.items()}
    assert scenes["valid_unseen"] == generator.UNSEEN
    assert not generator.UNSEEN & (scenes["train"] | scenes["validation"] | scenes["valid_seen"])
    for split, some in drawn.items():
        assert set(Counter(draw.kind.task for draw, _ in some).values()) == {sizes[split] // 6}, split
    if scene == "full":
        assert len(set().union(*scenes.values())) == 120


def test_another_seed_gives_other_games() -> None:
    one, other = ({placed.key for _, placed in generator.draws("train", seed, "full", 120)} for seed in (0, 1))
    assert len(one & other) < 3


def test_an_unknown_split_names_the_known() -> None:
    with pytest.raises(UserError, match=r"no split 'testing'.*valid_unseen"):
        load(CONFIG, "testing")


def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stock.VERSIONS, "textworld", "1.6.2")
    with pytest.raises(UserError, match=r"needs textworld 1\.6\.2, and it is 1\.7\.0: run `make alfworld`"):
        stock.check_versions.__wrapped__()


@pytest.mark.parametrize(
    ("split", "scene", "size"), [("train", "full", 150), ("valid_seen", "full", 60), ("valid_unseen", "full", 60), ("train", "small", 60)]
)
def test_every_game_is_won_by_the_planner(split: str, scene: str, size: int) -> None:
    solved = Counter()
    for draw, placed in generator.draws(split, 11, scene, size):
        commands = prove(placed)  # raises where the walkthrough does not win
        game = Game(generator.game(placed))
        assert won_by(game, commands) and not won_by(game, commands[:-1])
        assert len(commands) <= 14
        solved[draw.kind.task] += 1
    assert solved == {task: size // 6 for task in generator.TASKS}


def test_small_scenes_are_small() -> None:
    for _, placed in generator.draws("train", 0, "small", 120):
        play = GameSession(Game(generator.game(placed)))
        assert len(placed.receptacles) <= 6 and 2 <= len(placed.objects) <= 6
        assert len(play.feedback) < 350 and sum(map(len, play.admissible)) < 250
