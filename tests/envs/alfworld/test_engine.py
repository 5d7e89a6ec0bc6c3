"""The fast engine says what textworld says."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from onelayer.envs.alfworld import generator
from onelayer.envs.alfworld.game import Game, demangled
from onelayer.envs.alfworld.pddl import Unsupported
from onelayer.envs.alfworld.sources import begin, loaded, prove
from onelayer.envs.alfworld.stock import StockPlay

HERE = Path(__file__).parent
shared = runpy.run_path(str(HERE / "transcript.py"))
digest, drawn, fast, stock, transcript = (shared[name] for name in ("digest", "drawn", "fast", "stock", "transcript"))
pytestmark = pytest.mark.alfworld
RECORDED = json.loads((HERE / "stock.json").read_text())
"""By textworld itself: `python bench/alfworld.py --record`."""


def test_thirty_games_of_thirty_steps_are_those_of_textworld() -> None:
    games = drawn(RECORDED["games"])
    assert len(games) == 30
    assert [digest(transcript(fast(data), number, RECORDED["steps"])) for number, data in enumerate(games)] == RECORDED["sha256"]


@pytest.mark.parametrize("number", [0, 1, 4, 7])
def test_textworld_still_says_what_was_recorded(number: int) -> None:
    assert digest(transcript(stock(drawn(30)[number]), number, RECORDED["steps"])) == RECORDED["sha256"][number]


@pytest.mark.parametrize("number", range(6))
def test_a_won_game_is_that_of_textworld(number: int) -> None:
    """One of each task: its walkthrough, and on after the end."""
    placed = generator.draws("train", 5, "small", 6)[number][1]
    data, commands = generator.game(placed), prove(placed)
    said = transcript(fast(data), number, 14, commands)
    assert said == transcript(stock(data), number, 14, commands)
    assert [won for _, _, _, won, _, _ in said].index(True) == len(commands)


def shared_places(data: dict[str, Any]) -> dict[str, Any]:
    """Every second receptacle where the one before it is: no generated game has that, official ones may."""
    lines = data["pddl_problem"].split("\n")
    places = [line.split()[2].rstrip(")") for line in lines if line.strip().startswith("(receptacleAtLocation")]
    problem = data["pddl_problem"].split("(:init")
    for one, other in zip(places[::2], places[1::2], strict=False):
        problem[1] = problem[1].replace(f" {other})", f" {one})")
    return data | {"pddl_problem": "(:init".join(problem)}


@pytest.mark.parametrize("number", [1, 4])
def test_receptacles_that_share_a_place(number: int) -> None:
    data = shared_places(drawn(30)[number])
    assert transcript(fast(data), number, 25) == transcript(stock(data), number, 25)


def test_a_game_that_only_textworld_can_read_is_played_by_it() -> None:
    data = drawn(2)[1]
    data["grammar"] = data["grammar"].replace("You open the {r.name}.", "You open the {r.name.upper()}.")
    with pytest.raises(Unsupported):
        Game(data)
    plays = [begin(loaded(data)) for _ in range(2)]
    assert all(isinstance(play, StockPlay) for play in plays)
    place = next(command for command in plays[0].admissible if "drawer" in command or "cabinet" in command or "microwave" in command)
    plays[0].step(place)
    plays[0].step(f"open {place.removeprefix('go to ')}")
    assert plays[0].feedback.startswith(f"You open the {place.removeprefix('go to ').upper()}. The ")
    assert plays[1].feedback.startswith("-= Welcome"), "the other play goes its own way"


def test_names_are_those_of_alfworld() -> None:
    ids = {"mug_bar__plus_01_dot_00", "mug_bar__minus_01_dot_00", "sink_bar__plus_00_dot_10_bar_sinkbasin", "agent1", "loc_bar_3_bar_4"}
    program = (
        "import sys, json; from types import SimpleNamespace as N; from alfworld.agents.utils.misc import Demangler; "
        "ids = json.loads(sys.argv[1]); demangler = Demangler(game_infos={id: N(id=id) for id in ids}); "
        "print(json.dumps({id: demangler.demangle_alfred_name(id) for id in ids}))"
    )
    said = subprocess.run([sys.executable, "-c", program, json.dumps(sorted(ids))], capture_output=True, text=True, check=True).stdout
    assert demangled(ids) == json.loads(said)


def test_threads_do_not_disturb_each_other() -> None:
    games = drawn(6)
    alone = [transcript(fast(data), number, 30) for number, data in enumerate(games)]
    found: dict[int, Any] = {}

    def play(number: int) -> None:
        found[number] = transcript(fast(games[number]), number, 30)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == alone
