"""Which games there are: generated ones, and the official ones under ALFWORLD_DATA; splits of either, and files of the former."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...common.errors import NotAtHand, UserError
from ...common.files import check_new, write_atomically
from ...common.reading import read_json_object
from ..items import Item, Split, tenth
from . import generator
from .config import ALFWorldConfig
from .game import Game, GameSession
from .generator import LAMP, NEEDS, TASKS, Draw, Placed
from .pddl import Unsupported
from .stock import StockPlay, plan

SPLITS = ("train", "validation", "valid_seen", "valid_unseen")
SIZES = {"train": 512, "validation": 128, "valid_seen": 128, "valid_unseen": 128}
LARGEST_GAME = 64 << 20  # bytes
LAYOUT = "json_2.1.1"  # the folder of the official games

Data = dict[str, Any]
"""The content of a game.tw-pddl: pddl_domain, grammar, pddl_problem, solvable, and walkthrough where there is one."""


@dataclass(frozen=True)
class Games:
    """A split, what an item's game is, and commands that win it. `read` and `walkthrough` take an item's id."""

    split: Split
    read: Callable[[str], Data]
    walkthrough: Callable[[str], list[str]]


def load(config: ALFWorldConfig, split: str) -> Split:
    """The items of one split: train, validation, valid_seen or valid_unseen (test is another name of the last).

    `question` is the goal with the SHA-256 of the game, as the first observation does not tell what closed receptacles hold;
    `meta` has the type of task (type), the goal, and the number of ALFRED's floor plan (scene).
    Cached: the same configuration gives the same object. Raises UserError for an unknown split and for games that are missing or broken.
    """
    return games(config, split).split


def games(config: ALFWorldConfig, split: str) -> Games:
    """A split with its games. Cached. Raises UserError as `load` does."""
    return _games(config, "valid_unseen" if split == "test" else split, os.environ.get("ALFWORLD_DATA"))


@functools.lru_cache(maxsize=32)
def _games(config: ALFWorldConfig, split: str, data: str | None) -> Games:
    if split not in SPLITS:
        raise UserError(f"no split {split!r} of {config.id}; choose one of {', '.join(SPLITS)} (test is {SPLITS[-1]})")
    if config.suite == "official":
        return _official(data, split, config.size)
    return _generated(split, config.seed, config.scene, config.size or SIZES[split])


def _generated(split: str, seed: int, scene: str, size: int) -> Games:
    drawn = {draw.id: draw for draw, _ in generator.draws(split, seed, scene, size)}

    def item(draw: Draw) -> Item:
        placed = generator.place(draw)
        return _item(draw.id, draw.kind.task, placed.goal, draw.kind.scene, generator.game(placed))

    return Games(
        Split(f"ALFWorld/{split}", tuple(map(item, drawn.values()))),
        lambda id: generator.game(generator.place(drawn[id])),
        functools.lru_cache(maxsize=1024)(lambda id: prove(generator.place(drawn[id]))),
    )


def _item(id: str, task: str, goal: str, scene: int, data: Data) -> Item:
    return Item(id, f"{goal} ({generator.digest(data)})", "", {"type": task, "goal": goal, "scene": scene})


def prove(placed: Placed) -> list[str]:
    """The planner's walkthrough of a generated game, played to see that it wins.

    The planner searches blindly, for seconds where there is much about. It is given what the task needs and no more: what can be
    done there can be done in the whole game, where the walkthrough is then played.
    """
    kind = placed.kind
    targets = [some for some in placed.objects if some[1] == kind.target][: 2 if kind.task == "pick_two_obj_and_place" else 1]
    objects = [*targets, *(some for some in placed.objects if some[1] == LAMP)]
    holding = {receptacle.id for _, _, receptacle in objects}
    needed = {kind.receptacle, *NEEDS.get(kind.task, ())[:1]}
    first = {some.name: some.id for some in reversed(placed.receptacles) if some.name in needed}
    receptacles = [some for some in placed.receptacles if some.id in holding | set(first.values())]
    core = replace(placed, objects=tuple(objects), receptacles=tuple(receptacles))
    return _walkthrough(generator.game(placed), generator.problem(core), str(kind))


def _walkthrough(data: Data, problem: str, name: str) -> list[str]:
    game = Game(data)
    actions = {possible.action.name: possible for possible in game.actions}
    commands = [game.command(game.facts.start, actions[action], tuple(row)) for action, *row in plan(data["pddl_domain"], problem)]
    if not won_by(game, commands):
        raise UserError(f"{name}: the planner's walkthrough does not win the game, it cannot be won as it is; leave it out")
    return commands


def loaded(data: Data) -> Game | Data:
    """A game that any number of plays can begin from, which never change it; its data where only textworld itself can read them."""
    try:
        return Game(data)
    except Unsupported:
        return data


def begin(game: Game | Data) -> GameSession | StockPlay:
    """A new play."""
    return GameSession(game) if isinstance(game, Game) else StockPlay(game)


def won_by(game: Game | Data, commands: list[str]) -> bool:
    play = begin(game)
    for command in commands:
        play.step(command)
    return play.won


def _official(data: str | None, split: str, size: int | None) -> Games:
    found = list(_official_games(data, split))
    if not found:
        raise UserError(f"{data}: no playable games of {split} under {LAYOUT}; run `alfworld-download`, or use suite: generated")
    paths = {id: path for id, path, _ in found[:size]}

    def item(id: str, path: Path, content: Data) -> Item:
        trajectory = _json(path.with_name("traj_data.json"))
        goal = content["grammar"].partition("Your task is to: ")[2].partition('"')[0].rstrip(".")
        return _item(id, trajectory["task_type"], goal, trajectory["scene"]["scene_num"], content)

    def read(id: str) -> Data:
        return _json(paths[id])

    @functools.lru_cache(maxsize=1024)
    def walkthrough(id: str) -> list[str]:
        content = read(id)
        known = content.get("walkthrough") or []
        return known if known and won_by(loaded(content), known) else _walkthrough(content, content["pddl_problem"], id)

    return Games(Split(f"ALFWorld official/{split}", tuple(item(*some) for some in found[:size])), read, walkthrough)


def _official_games(data: str | None, split: str) -> Iterator[tuple[str, Path, Data]]:
    """Solvable games as (id, file, content), sorted. Movable receptacles and slices are left out, as alfworld itself leaves them out."""
    if data is None:
        raise NotAtHand("ALFWORLD_DATA is not set: set it to the folder that alfworld-download wrote, or use suite: generated")
    folder = Path(os.path.expanduser(data), LAYOUT, "train" if split == "validation" else split)
    if not folder.is_dir():
        raise NotAtHand(f"{folder}: no such folder; set ALFWORLD_DATA to what alfworld-download wrote, or use suite: generated")
    for path in sorted(folder.glob("*/trial_T*/game.tw-pddl")):
        kind, trial = path.parts[-3:-1]
        if "movable" in kind or "Sliced" in kind or kind.split("-")[0] not in TASKS:
            continue
        if split in ("train", "validation") and (tenth(kind) in generator.TENTHS["validation"]) is not (split == "validation"):
            continue
        if (content := _json(path)).get("solvable"):
            yield f"{kind}/{trial}", path, content


def _json(path: Path) -> Data:
    try:
        return read_json_object(path, LARGEST_GAME)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); download it again, or remove the folder of this game") from error


def generate(
    out: Path,
    sizes: Mapping[str, int] = SIZES,
    seed: int = 0,
    scene: str = "full",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write generated games as the official ones are laid out: `out`/json_2.1.1/SPLIT/KIND/TRIAL/game.tw-pddl with traj_data.json.

    Each is proven by a walkthrough, which is in the file. With ALFWORLD_DATA set to `out`, alfworld itself plays them, and so does
    suite="official". The official layout has no validation split: its games go to train, from which reading divides them again.
    `progress` is told how many are written, of how many. Returns the number of games by split. Raises UserError where `out` is not empty
    or cannot be written.
    """
    if unknown := set(sizes) - set(SPLITS):
        raise UserError(f"no split {sorted(unknown)[0]!r}; choose of {', '.join(SPLITS)}")
    check_new(out)
    done, total = 0, sum(sizes.values())
    for split, size in sizes.items():
        for draw, placed in generator.draws(split, seed, scene, size):
            folder = out / LAYOUT / ("train" if split == "validation" else split) / draw.id
            content = generator.game(placed) | {"walkthrough": prove(placed)}
            write_atomically(folder / "traj_data.json", json.dumps(generator.trajectory(placed)))
            write_atomically(folder / "initial_state.pddl", str(content["pddl_problem"]))
            write_atomically(folder / "game.tw-pddl", json.dumps(content))
            progress(done := done + 1, total)
    return dict(sizes)
