"""Commands that are not spelled as the game has them: which are played, as what, and which have no reading."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer.agents.dialogue import parse_action
from onelayer.envs.alfworld.env import ALFWorldEnv
from onelayer.envs.alfworld.spelling import reading

GAME = [
    "examine cabinet 1",
    "go to cabinet 1",
    "go to cabinet 11",
    "inventory",
    "look",
    "move mug 1 to cabinet 1",
    "take fork 2 from shelf 1",
]
OLDER = ["go to desk 1", "put mug 1 in/on desk 1"]

READ = {
    "look": "look",
    "Look": "look",
    "LOOK.": "look",
    "Go to cabinet 1": "go to cabinet 1",
    "go  to\tCabinet  1": "go to cabinet 1",
    "go to the cabinet 1": "go to cabinet 1",
    "`go to cabinet 11`": "go to cabinet 11",
    '"Inventory"': "inventory",
    "**Take the fork 2 from the shelf 1.**": "take fork 2 from shelf 1",
    "> look": "look",
    "put mug 1 in/on cabinet 1": "move mug 1 to cabinet 1",
    "Put mug 1 in cabinet 1.": "move mug 1 to cabinet 1",
    "put mug 1 on cabinet 1": "move mug 1 to cabinet 1",
    "put a mug 1 into the cabinet 1": "move mug 1 to cabinet 1",
    "place mug 1 onto cabinet 1": "move mug 1 to cabinet 1",
    "move mug 1 in/on cabinet 1": "move mug 1 to cabinet 1",
}
NOT_READ = [
    *("", " ", ".", "`", "the", "go to cabinet", "go to cabinet 2", "go to cabinet 1 1", "cabinet 1", "go cabinet 1", "goto cabinet 1"),
    *("look look", "look\nlook", "look, inventory", "go to cabinet 1 or cabinet 11", "go to cabinet 1 and look", "go to cabinet one"),
    *(
        "put mug 1",
        "put mug 1 cabinet 1",
        "put mug 1 under cabinet 1",
        "put mug 2 in cabinet 1",
        "put mug in cabinet",
        "put cabinet 1 in mug 1",
    ),
    *("put mug 1 in cabinet 1 in cabinet 1", "move mug 1 to cabinet 11", "take fork 2 to shelf 1", "put fork 2 from shelf 1", "drop mug 1"),
    *("look\x00", "loo\u212a", "\u202elook", "\x1b[31mlook", "ｌｏｏｋ", "lооk", "look\u200b", "ınventory", "go\xa0to\u2003cabinet 1"),
    *("do not go to cabinet 1", "examine", "[look]", "look?", "{look}", "go to cabinet 01", "go to cabinet 1.0"),
]


@pytest.mark.parametrize("command", READ)
def test_a_spelling_with_one_reading_is_read(command: str) -> None:
    assert reading(command, GAME) == READ[command]


@pytest.mark.parametrize("command", NOT_READ, ids=ascii)
def test_what_comes_to_no_command_is_none(command: str) -> None:
    assert reading(command, GAME) is None


def test_games_of_earlier_versions_are_read_the_other_way_round() -> None:
    for command in ("move mug 1 to desk 1", "put mug 1 in desk 1", "Put mug 1 in/on desk 1"):
        assert reading(command, OLDER) == OLDER[1]


def test_two_readings_are_none() -> None:
    """What is said letter by letter goes first; then what differs in capitals; then the verb."""
    both = ["move pot 1 to pan 1", "put pot 1 into pan 1", "take Cup 1", "take cup 1"]
    assert [reading(command, both) for command in both] == both
    assert reading("Put pot 1 into pan 1", both) == "put pot 1 into pan 1"
    assert reading("put pot 1 on pan 1", both) is None and reading("TAKE CUP 1", both) is None


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_reading_is_always_possible_and_says_the_same_names(data: st.DataObject) -> None:
    admissible = data.draw(st.lists(st.sampled_from(GAME + OLDER), unique=True))
    command = data.draw(st.one_of(st.text(), st.text("god put/intcabe1 .'\n"), st.sampled_from([*READ, *NOT_READ])))
    found = reading(command, admissible)
    assert found is None or found in admissible
    if found is not None:
        assert {word for word in found.split() if word.isdigit()} == {
            word for word in command.strip(" \n\t\r.'\"*`>!").split() if word.isdigit()
        }
        assert reading(found, admissible) == found


def recased(command: str) -> str:
    return command.title() + "."


@pytest.mark.alfworld
def test_a_game_won_in_another_spelling() -> None:
    """The walkthrough in capitals, with `put` for `move`: it wins, tells what was played, and wins nothing under the strict rule."""
    spelled, strict = ALFWorldEnv(split="valid_unseen"), ALFWorldEnv(split="valid_unseen", strict=True)
    for item in list(spelled.items)[:6]:
        spelled.reset(options={"item": item})
        _, first = strict.reset(options={"item": item})
        gold = spelled.gold(item)
        for command in gold:
            other = recased(command).replace("Move", "Put").replace(" To ", " In/On ") if command.startswith("move") else recased(command)
            observation, reward, won, _, info = spelled.step(other)
            assert info["valid"] and info["played"] == command and observation != "Nothing happens."
            observation, _, _, _, refused = strict.step(other)
            assert observation == "Nothing happens." and not refused["valid"] and "played" not in refused
            assert refused["admissible"] == first["admissible"]
        assert won and reward == 1.0
        spelled.reset(options={"item": item})
        turns = [spelled.step(command) for command in gold]
        assert turns[-1][1] == 1.0 and not any("played" in turn[4] for turn in turns), "spelled as the game has them, nothing is corrected"


@pytest.mark.alfworld
def test_no_possible_command_is_read_as_another() -> None:
    """Over the possible commands of games, both rules play the same."""
    env = ALFWorldEnv(split="train", size=12)
    for item in env.items:
        _, info = env.reset(options={"item": item})
        for command in [*env.gold(item), "look"]:
            admissible = info["admissible"]
            assert [reading(one, admissible) for one in admissible] == admissible
            assert [reading(recased(one), admissible) for one in admissible] == admissible, "capitals tell no two commands apart"
            _, _, won, _, info = env.step(command)
            if won:
                break


@pytest.mark.parametrize(
    "tag", ["<action>{}</action>", "<Action>{}</Action>", "<ACTION>{}</action>", "<think>so</think><AcTiOn> {} </aCtIoN>."]
)
def test_the_tag_may_have_capitals(tag: str) -> None:
    assert parse_action(tag.format("go to cabinet 1"), {"admissible": GAME}) == "go to cabinet 1"
