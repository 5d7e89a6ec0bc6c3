"""What a game says and allows along a random walk, hashed: by the fast engine and by textworld itself.

The walk draws a verb of what is possible, then a command with it, so that rare ones come too; one time in ten it says what is
not possible. Facts are compared too, but for textworld's own
helpers: derived facts, `not_...`, and isOn, which textworld reports as false for good although the planner's library toggles it.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from onelayer.envs.alfworld import generator
from onelayer.envs.alfworld.game import Game, GameSession
from onelayer.envs.alfworld.stock import StockPlay

NOT_COMPARED = ("new-axiom@", "not_", "ison", "type ")


def drawn(count: int) -> list[dict[str, Any]]:
    """Games of full and of small scenes in turn, all six tasks, seen and unseen scenes."""
    full, unseen = (generator.draws(split, 7, "full", count) for split in ("train", "valid_unseen"))
    small = generator.draws("valid_seen", 7, "small", count)
    return [generator.game(some[number][1]) for number in range(count) for some in [(full, small, unseen)[number % 3]]]


def stock(data: dict[str, Any]) -> StockPlay:
    return StockPlay(data)


def fast(data: dict[str, Any]) -> GameSession:
    return GameSession(Game(data))


def facts(play: GameSession | StockPlay) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(play, StockPlay):
        found = play.facts
    else:
        stores = (play.game.facts.fixed, play.fluent)
        found = {(key[0], row) for rows in stores for key, some in rows.items() if len(key) == 1 for row in some}
    return sorted(fact for fact in found if not fact[0].startswith(NOT_COMPARED))


def transcript(play: GameSession | StockPlay, seed: int, steps: int, first: list[str] | None = None) -> list[Any]:
    """For the start and each step: command, feedback, possible commands, whether won, score, facts; `first` are commands to begin with."""
    rng = random.Random(seed)
    told, command, ahead = [], "", iter(first or ())
    for _ in range(steps + 1):
        score = play.score if isinstance(play, StockPlay) else int(play.won)
        told.append([command, play.feedback, play.admissible, play.won, score, facts(play)])
        command = next(ahead, None) or drawn_command(play.admissible, rng)
        play.step(command)
    return told


def drawn_command(admissible: list[str], rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "sing a song"
    verbs = sorted({command.split()[0] for command in admissible})
    verb = verbs[int(rng.random() * len(verbs))]
    some = [command for command in admissible if command.split()[0] == verb]
    return some[int(rng.random() * len(some))]


def digest(told: list[Any]) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
