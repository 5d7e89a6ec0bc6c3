"""Commands that are not spelled as the game lists them, and have one reading all the same.

textworld takes a command letter by letter. Models write `Go to cabinet 1.`, and `put mug 1 in/on desk 1` where this version of
alfworld has `move mug 1 to desk 1`, since earlier versions and their papers have it. Such a command is read as the possible one that it
comes to. Where it comes to several, or to none, it has no reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

PLAIN = re.compile(r"[ -~\t\n\r]*")  # nothing that looks like a letter and is another one, or moves the cursor
AROUND = " \t\n\r\"'`*.!>"  # quotes, Markdown and what ends a sentence
ARTICLE = re.compile(r"\b(?:the|an?) (?=\S+ \d)")
PUT = re.compile(r"(?:put|place|move) (\S+ \d+) (?:in/on|into|onto|inside|in|on|to) (\S+ \d+)")


def reading(command: str, admissible: Sequence[str]) -> str | None:
    """The admissible command that `command` stands for; None where there is not exactly one.

    What a command says letter by letter goes before what it says but for capitals, and that before what it says by another verb.
    """
    if command in admissible:
        return command
    if not PLAIN.fullmatch(command):
        return None
    for form in FORMS:
        wanted = form(command)
        if found := [one for one in admissible if form(one) == wanted]:
            return found[0] if len(found) == 1 else None
    return None


def folded(command: str) -> str:
    """Without capitals, articles, quotes around it and a stop at its end; one space between two words."""
    return ARTICLE.sub("", " ".join(command.strip(AROUND).lower().split()))


def moved(command: str) -> str:
    """Putting something in, on or to a place is one action."""
    return PUT.sub(r"move \1 to \2", found) if PUT.fullmatch(found := folded(command)) else found


FORMS: tuple[Callable[[str], str], ...] = (folded, moved)
