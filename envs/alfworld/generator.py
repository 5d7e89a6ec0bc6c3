"""Games made from a seed: ALFRED's 120 scenes with the tables of the alfworld package, and objects placed at random.

The same seed, split and number give the same bytes everywhere: everything is sorted before it is drawn from, and all
draws are `random.Random.random()`, the one method whose sequence Python guarantees across versions.

A game can be won by construction: the target starts outside the class of receptacle it is wanted in, in a receptacle that
can be opened or needs no opening; everything named by the task is in the scene. The planner's walkthrough proves it (stock.py).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ...common.errors import UserError
from ..items import tenth
from .stock import check_versions

T = TypeVar("T")
TASKS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
UNSEEN = frozenset({10, 219, 308, 424} | {9, 29, 215, 226, 315, 325, 404, 430})
"""ALFRED's scenes that its training has not: of its unseen validation and of its unseen test."""
TENTHS = {"train": range(8), "validation": range(8, 9), "valid_seen": range(9, 10)}
"""A kind of game (task, target, receptacle, scene) of the other scenes belongs to one split, by its hash."""
NEEDS = {  # the receptacle that an action takes, and the table of what it can be done to
    "pick_clean_then_place_in_recep": ("SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("Fridge", "Coolable"),
}
LAMP, LAMP_STANDS = "DeskLamp", ("Desk", "Dresser", "Shelf", "SideTable")  # a desk lamp is in no table of the package
INNER = {"Sink": "SinkBasin", "Bathtub": "BathtubBasin"}  # as the layouts name them, and as the tables do
ELSEWHERE = {"StoveBurner": 4}  # receptacles whose place no layout tells: one of each class, but these
LEFT_OUT = {"FloorLamp", "TeddyBear", LAMP}  # cannot be picked up; a name that the package misspells; placed on its own
FULL_OBJECTS = (12, 22)
FEW_RECEPTACLES, FEW_OBJECTS = 6, (3, 5)  # of a small scene


@dataclass(frozen=True, order=True)
class GameTask:
    """What is asked for, and where. `receptacle` is the lamp where the task is to look at something."""

    task: str
    target: str
    receptacle: str
    scene: int

    def __str__(self) -> str:
        """As the official games name their folders (without an object that other objects are put in)."""
        return f"{self.task}-{self.target}-None-{self.receptacle}-{self.scene}"


@dataclass(frozen=True)
class Draw:
    """One generated game: a seed of a split, its number there, and the draw among those of its number (0 unless games would be equal)."""

    kind: GameTask
    split: str
    seed: int
    scene: str
    number: int
    again: int = 0

    @property
    def id(self) -> str:
        return f"{self.kind}/trial_T{self.seed}_{self.number:06d}{'_small' if self.scene == 'small' else ''}"

    def rng(self) -> random.Random:
        return random.Random(f"alfworld {self.scene} {self.seed} {self.split} {self.number} {self.again}")


@dataclass(frozen=True)
class Package:
    """The data of the installed alfworld package."""

    domain: str
    grammar: str
    tables: ModuleType
    goals: Mapping[str, Mapping[str, Any]]
    layouts: Path

    @functools.cached_property
    def contains(self) -> dict[str, frozenset[str]]:
        """What each receptacle that does not move can hold."""
        tables = self.tables
        movable = tables.MOVABLE_RECEPTACLES_SET
        fixed = {name for name in tables.VAL_RECEPTACLE_OBJECTS if name not in movable}
        return {
            name: frozenset(x for x in tables.VAL_RECEPTACLE_OBJECTS[name] if not x.endswith("Sliced") and x not in fixed | LEFT_OUT)
            for name in sorted(fixed)
        }


@functools.cache
def package() -> Package:
    """Read without importing alfworld, which would make a folder in the user's home. Raises UserError where it is missing."""
    check_versions()
    root = Path(str(distribution("alfworld").locate_file("alfworld")))
    return Package(
        domain=(root / "data" / "alfred.pddl").read_text(),
        grammar=(root / "data" / "alfred.twl2").read_text(),
        tables=_module(root / "gen" / "constants.py"),
        goals=_module(root / "gen" / "goal_library.py").gdict,
        layouts=root / "gen" / "layouts",
    )


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"onelayer_alfworld_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Receptacle:
    id: str
    name: str
    place: str


@dataclass(frozen=True)
class Scene:
    """The receptacles of one floor plan, and the classes of objects that may lie about."""

    receptacles: tuple[Receptacle, ...]
    objects: tuple[str, ...]
    lamp: bool


@functools.cache
def read_scene(plan: int) -> Scene:
    """Receptacles stand where the package's layout has them; those it has no place for get one, the same in every game."""
    known = package()
    names = set(json.loads((known.layouts / f"FloorPlan{plan}-objects.json").read_text()))
    places = json.loads((known.layouts / f"FloorPlan{plan}-openable.json").read_text())
    rng = random.Random(f"FloorPlan{plan}")
    found: dict[str, tuple[str, list[float]]] = {}  # id -> class, where the agent stands: x, z (metres), rotation, horizon (degrees)
    for key, pose in sorted(places.items()):
        name, *position = key.split("|")
        if (name := INNER.get(name, name)) in known.contains:
            found[_id(name, position[:3])] = (name, pose)
    for name in sorted((names & set(known.contains)) - {name for name, _ in found.values()}):
        for _ in range(ELSEWHERE.get(name, 1)):
            pose = [_below(rng, 32) / 4 - 4, _below(rng, 32) / 4 - 4, 90 * _below(rng, 4), 30]
            found[_new_id(rng, name, found)] = (name, pose)
    taken: set[str] = set()
    receptacles = tuple(Receptacle(id, name, _location(pose, taken)) for id, (name, pose) in sorted(found.items()))
    objects = tuple(sorted(names & frozenset().union(*(known.contains[receptacle.name] for receptacle in receptacles))))
    return Scene(receptacles, objects, LAMP in names and any(receptacle.name in LAMP_STANDS for receptacle in receptacles))


@functools.cache
def kinds(split: str) -> Mapping[str, tuple[GameTask, ...]]:
    """The kinds of games of a split, by task, sorted."""
    unseen = split == "valid_unseen"
    found: dict[str, list[GameTask]] = {task: [] for task in TASKS}
    for room, plans in package().tables.SCENE_TYPE.items():
        for plan in plans:
            if (plan in UNSEEN) is unseen:
                for task in TASKS:
                    if room in package().tables.GOALS_VALID[task]:
                        found[task] += [kind for kind in _kinds(task, plan) if unseen or tenth(str(kind)) in TENTHS[split]]
    return {task: tuple(sorted(some)) for task, some in found.items()}


def _kinds(task: str, plan: int) -> Iterable[GameTask]:
    scene, contains = read_scene(plan), package().contains
    have = {receptacle.name for receptacle in scene.receptacles}
    if task == "look_at_obj_in_light":
        if scene.lamp:
            yield from (GameTask(task, target, LAMP, plan) for target in scene.objects)
        return
    needed, ability = NEEDS.get(task, (None, None))
    if needed is not None and needed not in have:
        return
    for target in scene.objects:
        if ability is None or target in package().tables.VAL_ACTION_OBJECTS[ability]:
            for name in sorted(have - {needed}):
                if target in contains[name] and any(target in contains[other] for other in have - {name}):
                    yield GameTask(task, target, name, plan)


def draws(split: str, seed: int, scene: str, size: int) -> list[tuple[Draw, Placed]]:
    """The first `size` games of a split: the tasks in turn, no kind twice before all of its task have come, no game twice.

    Raises UserError where there are not so many.
    """
    rng = random.Random(f"alfworld {seed} {split}")
    by_task = {task: _shuffled(rng, some) for task, some in kinds(split).items()}
    found: dict[str, tuple[Draw, Placed]] = {}
    for number in range(size):
        some = by_task[TASKS[number % len(TASKS)]]
        for again in range(100):
            draw = Draw(some[number // len(TASKS) % len(some)], split, seed, scene, number, again)
            placed = place(draw)
            if (key := placed.key) not in found:
                found[key] = (draw, placed)
                break
        else:
            raise UserError(f"no {size} different games in {split} with scenes of this size; ask for {number} or fewer")
    return list(found.values())


@dataclass(frozen=True)
class Placed:
    """A game before it is written: its receptacles, and the objects in them as (id, class, receptacle)."""

    kind: GameTask
    goal: str
    receptacles: tuple[Receptacle, ...]
    objects: tuple[tuple[str, str, Receptacle], ...]
    start: str
    name: str

    @property
    def key(self) -> str:
        """Equal for equal games: what is asked for, and what lies where. Coordinates of objects do not count."""
        lying = sorted(f"{name} in {receptacle.id}" for _, name, receptacle in self.objects)
        return "; ".join([str(self.kind), *(receptacle.id for receptacle in self.receptacles), *lying])


def place(draw: Draw) -> Placed:
    """Draw the objects of a game and where they lie."""
    rng, kind, whole = draw.rng(), draw.kind, read_scene(draw.kind.scene)
    contains = {name: set(some) | ({LAMP} if name in LAMP_STANDS else set()) for name, some in package().contains.items()}
    template = _pick(rng, package().goals[kind.task]["templates"])
    look = kind.receptacle == LAMP
    goal = template.format(obj=kind.target.lower(), recep=kind.receptacle.lower(), toggle=LAMP.lower(), mrecep="")
    receptacles = whole.receptacles if draw.scene == "full" else _few(rng, kind, whole.receptacles, contains)

    least, most = FULL_OBJECTS if draw.scene == "full" else FEW_OBJECTS
    count = least + _below(rng, most - least + 1)
    wanted = [kind.target] * ((2 if kind.task == "pick_two_obj_and_place" else 1) + _below(rng, 2))
    if look or (whole.lamp and draw.scene == "full"):
        wanted.append(LAMP)
    others = [name for name in whole.objects if name != kind.target]
    wanted += [_pick(rng, others) for _ in range(count - len(wanted))]
    objects: dict[str, tuple[str, str, Receptacle]] = {}
    for name in wanted:
        fitting = [some for some in receptacles if name in contains[some.name] and (name, some.name) != (kind.target, kind.receptacle)]
        if fitting:
            chosen = _pick(rng, fitting)
            id = _new_id(rng, name, objects)
            objects[id] = (id, name, chosen)
    start = _location([_below(rng, 32) / 4 - 4, _below(rng, 32) / 4 - 4, 90 * _below(rng, 4), 30], {some.place for some in receptacles})
    return Placed(kind, goal, receptacles, tuple(objects.values()), start, f"trial_{draw.split}_{draw.seed}_{draw.number:06d}")


def _few(rng: random.Random, kind: GameTask, receptacles: Sequence[Receptacle], contains: Mapping[str, set[str]]) -> tuple[Receptacle, ...]:
    """What the task needs, and some more."""
    shuffled = _shuffled(rng, receptacles)
    chosen = [next(some for some in shuffled if kind.target in contains[some.name] and some.name != kind.receptacle)]
    needed = {LAMP_STANDS if kind.receptacle == LAMP else (kind.receptacle,)}
    needed |= {(NEEDS[kind.task][0],)} if kind.task in NEEDS else set()
    for names in sorted(needed):
        if not any(some.name in names for some in chosen):
            chosen.append(next(some for some in shuffled if some.name in names))
    chosen += [some for some in shuffled if some not in chosen][: FEW_RECEPTACLES - len(chosen)]
    return tuple(sorted(chosen, key=lambda some: some.id))


def game(placed: Placed) -> dict[str, Any]:
    """The content of game.tw-pddl, but for the walkthrough."""
    grammar = package().grammar.replace("UNKNOWN GOAL", placed.goal)
    return {"pddl_domain": package().domain, "grammar": grammar, "pddl_problem": problem(placed), "solvable": True}


def digest(data: Mapping[str, object]) -> str:
    """SHA-256 of a game: its problem and its grammar, which has the goal in words."""
    return hashlib.sha256("\0".join(str(data[key]) for key in ("pddl_problem", "grammar")).encode()).hexdigest()


def trajectory(placed: Placed) -> dict[str, object]:
    """What the official traj_data.json tells of the task."""
    kind, look = placed.kind, placed.kind.receptacle == LAMP
    parameters = {
        "object_target": kind.target,
        "parent_target": "" if look else kind.receptacle,
        "toggle_target": LAMP if look else "",
        "mrecep_target": "",
        "object_sliced": False,
    }
    scene = {"floor_plan": f"FloorPlan{kind.scene}", "scene_num": kind.scene}
    return {
        "task_id": placed.name,
        "task_type": kind.task,
        "pddl_params": parameters,
        "scene": scene,
        "turk_annotations": {"anns": [{"task_desc": placed.goal}]},
    }


def problem(placed: Placed) -> str:
    """The game in PDDL, as alfworld's generator writes it from a simulated scene."""
    tables, contains = package().tables, package().contains
    init = [f"(atLocation agent1 {placed.start})"]
    for some in placed.receptacles:
        init += [f"(receptacleType {some.id} {some.name}Type)", f"(receptacleAtLocation {some.id} {some.place})"]
        init += [f"(openable {some.id})"] if some.name in tables.OPENABLE_CLASS_SET else []
    for id, name, receptacle in placed.objects:
        init += [f"(objectType {id} {name}Type)", f"(inReceptacle {id} {receptacle.id})", f"(objectAtLocation {id} {receptacle.place})"]
        init += [f"(pickupable {id})"] if name != LAMP else []
        init += [f"(isReceptacleObject {id})"] if name in tables.MOVABLE_RECEPTACLES_SET else []
        init += [f"({ability.lower()} {id})" for ability, some in sorted(tables.VAL_ACTION_OBJECTS.items()) if name in some]
    names = {name for _, name, _ in placed.objects}
    classes = {some.name for some in placed.receptacles}
    init += [f"(canContain {some}Type {name}Type)" for some in sorted(classes) for name in sorted(names & contains[some])]
    objects = [
        "agent1 - agent",
        *(f"{name}Type - otype" for name in sorted(names | {"Knife", "ButterKnife"})),  # the domain names these and those of the next line
        *(f"{name}Type - rtype" for name in sorted(classes | {"SinkBasin", "Microwave", "Fridge"})),
        *(f"{id} - object" for id, _, _ in placed.objects),
        *(f"{some.id} - receptacle" for some in placed.receptacles),
        *(f"{place} - location" for place in (*(some.place for some in placed.receptacles), placed.start)),
    ]
    kind = placed.kind
    goal = str(package().goals[kind.task]["pddl"]).format(obj=kind.target, recep=kind.receptacle, toggle=LAMP, mrecep="").replace("#", "-")
    head = f"(define (problem plan_{placed.name})\n(:domain alfred)\n"
    return f"{head}(:objects\n  {_lines(objects)}\n)\n(:init\n  {_lines(init)}\n)\n{goal}"  # the goal closes the first parenthesis


def _lines(parts: Iterable[str]) -> str:
    return "\n  ".join(parts)


def _new_id(rng: random.Random, name: str, taken: Iterable[str]) -> str:
    while True:
        position = [f"{800 * rng.random() / 100 - 4:+06.2f}" for _ in range(3)]
        if (id := _id(name, position)) not in taken:
            return id


def _id(name: str, position: Sequence[str]) -> str:
    """`Class_bar_x_bar_y_bar_z`; alfworld puts `basin` to the class of an id that has it anywhere, so it stands at the end."""
    outer = next((outer for outer, inner in INNER.items() if inner == name), None)
    return _pddl("|".join([outer or name, *position, *([name] if outer else [])]))


def _location(pose: Sequence[float], taken: set[str]) -> str:
    """Where the agent stands, in steps of 25 cm. No two are the same (a layout has some): the next free one to the right is taken."""
    x, z, rotation, horizon = pose
    while (name := _pddl(f"loc|{int(x * 4)}|{int(z * 4)}|{int(rotation) // 90}|{int(horizon)}")) in taken:
        x += 0.25
    taken.add(name)
    return name


def _pddl(text: str) -> str:
    for letter, word in (("-", "_minus_"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_")):
        text = text.replace(letter, word)
    return text


def _below(rng: random.Random, count: int) -> int:
    return int(rng.random() * count)


def _pick(rng: random.Random, some: Sequence[T]) -> T:
    return some[_below(rng, len(some))]


def _shuffled(rng: random.Random, some: Sequence[T]) -> list[T]:
    result = list(some)
    for at in range(len(result) - 1, 0, -1):
        other = _below(rng, at + 1)
        result[at], result[other] = result[other], result[at]
    return result
