"""Games as files: what `generate` writes is what alfworld and suite="official" read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onelayer.envs import UserError
from onelayer.envs.alfworld.env import ALFWorldEnv
from onelayer.envs.alfworld.sources import generate, load
from onelayer.envs.config import ALFWorldConfig

pytestmark = pytest.mark.alfworld
OFFICIAL = ALFWorldConfig(id="onelayer/ALFWorld-v0", suite="official")
SIZES = {"train": 12, "validation": 6, "valid_seen": 6, "valid_unseen": 6}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("games")
    assert generate(out, SIZES, seed=5) == SIZES
    return out


@pytest.fixture
def data(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to be broken."""
    shutil.copytree(written, tmp_path / "data")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    yield tmp_path / "data"


def test_the_official_suite_reads_what_was_written(data: Path) -> None:
    for split, size in SIZES.items():
        generated = load(ALFWorldConfig(id="onelayer/ALFWorld-v0", size=size, seed=5), split)
        official = load(OFFICIAL, split)
        assert sorted(generated.items, key=lambda item: item.id) == list(official.items)
        env = ALFWorldEnv(suite="official", split=split)
        for item in list(env.items)[:2]:
            env.reset(options={"item": item})
            assert [env.step(command)[1] for command in env.gold(item)][-1] == 1.0


def test_what_alfworld_leaves_out_is_left_out(data: Path) -> None:
    games = sorted((data / "json_2.1.1" / "valid_seen").glob("*/*/game.tw-pddl"))
    content = json.loads(games[0].read_text())
    games[0].write_text(json.dumps(content | {"solvable": False}))
    (left,) = (
        games[1].parent.parent.rename(games[1].parents[2] / "pick_and_place_with_movable_recep-Pen-Mug-Desk-302").glob("*/game.tw-pddl")
    )
    ids = set(load(OFFICIAL, "valid_seen").by_id)
    assert len(ids) == 4 and not any("movable" in id for id in ids) and left.exists()


def test_what_is_missing_or_broken_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((data / "json_2.1.1" / "valid_unseen").glob("*/*/game.tw-pddl"))
    path.write_text("{")
    with pytest.raises(UserError, match=r"game\.tw-pddl: not JSON \(.*\); bring the file back"):
        load(OFFICIAL, "valid_unseen")
    shutil.rmtree(data / "json_2.1.1" / "valid_seen")
    with pytest.raises(UserError, match="valid_seen: no such folder"):
        load(OFFICIAL.model_copy(update={"size": 3}), "valid_seen")
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(UserError, match="ALFWORLD_DATA is not set"):
        load(OFFICIAL, "train")
    with pytest.raises(UserError, match="not empty"):
        generate(data, SIZES)


ALFWORLD = """
import json, sys
from alfworld.agents.environment import get_environment
config = {
    "env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False, "expert_type": "handcoded"},
    "dataset": {"data_path": "$ALFWORLD_DATA/json_2.1.1/train", "eval_id_data_path": "$ALFWORLD_DATA/json_2.1.1/valid_seen",
                "eval_ood_data_path": "$ALFWORLD_DATA/json_2.1.1/valid_unseen", "num_train_games": -1, "num_eval_games": -1},
    "general": {"training_method": "dqn"}, "rl": {"training": {"max_nb_steps_per_episode": 50}},
}
if __name__ == "__main__":
    found = {}
    for split in ("train", "eval_in_distribution", "eval_out_of_distribution"):
        environment = get_environment("AlfredTWEnv")(config, train_eval=split)
        games = environment.game_files
        env = environment.init_env(batch_size=1)
        won = 0
        for _ in range(2):
            _, info = env.reset()
            for command in json.load(open(info["extra.gamefile"][0]))["walkthrough"]:
                _, _, done, info = env.step([command])
            won += bool(info["won"][0]) and bool(done[0])
        found[split] = [len(games), won]
    print(json.dumps(found))
"""


def test_alfworld_itself_plays_and_wins_them(written: Path, tmp_path: Path) -> None:
    program = tmp_path / "play.py"
    program.write_text(ALFWORLD)
    environment = {**os.environ, "ALFWORLD_DATA": str(written)}
    said = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stderr
    found = {"train": [18, 2], "eval_in_distribution": [6, 2], "eval_out_of_distribution": [6, 2]}
    assert json.loads(said.stdout.splitlines()[-1]) == found, "games there are, and won of the two that were played"
