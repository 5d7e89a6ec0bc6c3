"""Seeded procedural tasks: small Python functions, described in words with two examples.

Every function of a family is enumerated; a split is fixed by the function's own code (a hash of it), never by the order of generation,
so train, validation and test cannot share a function whatever the seed and the size. Its examples and hidden tests follow from its
code too: the same function is the same item under every seed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from itertools import product

from ...common.errors import UserError
from ..items import Item, tenth
from .problems import Args, Calls, Problem

SPLITS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}  # tenths of the hash space
DEFAULT_SIZE = {"train": 4096, "validation": 512, "test": 512}
EXAMPLES, HIDDEN = 2, 8
LETTERS = "abcdehst"
Spec = tuple[str, str, str]  # parameters, what is wanted in words, the expression that computes it


def generate(split: str, size: int | None, seed: int) -> list[tuple[Item, Problem]]:
    """`size` distinct tasks of `split`, the families in turn. Without a size 4096 to train and 512 else.

    Raises UserError where fewer exist than asked for.
    """
    pools = [list(pool) for pool in enumerated()[split].values()]
    there, wanted = sum(map(len, pools)), size or DEFAULT_SIZE[split]
    if wanted > there:
        raise UserError(f"env.size={size}, but {split} has {there} functions: lower it")
    for number, pool in enumerate(pools):
        random.Random(f"functions/{number}/{seed}").shuffle(pool)
    chosen: list[tuple[str, Spec]] = []
    while len(chosen) < wanted:
        chosen += [pool.pop() for pool in pools if pool][: wanted - len(chosen)]
    return [task(family, spec) for family, spec in chosen]


@functools.cache
def enumerated() -> dict[str, dict[str, list[tuple[str, Spec]]]]:
    """split -> family -> every (family, spec) in it, each function once."""
    found: dict[str, dict[str, list[tuple[str, Spec]]]] = {split: {family: [] for family in FAMILIES} for split in SPLITS}
    seen: set[str] = set()
    for family, specs in FAMILIES.items():
        for spec in specs():
            code = solution(spec)
            if code not in seen:
                seen.add(code)
                found[split_of(code)][family].append((family, spec))
    return found


def split_of(code: str) -> str:
    """The split that a function belongs to: a pure function of its code."""
    return next(name for name, tenths in SPLITS.items() if tenth(code) in tenths)


def solution(spec: Spec) -> str:
    """The function as the suite writes it."""
    parameters, _, expression = spec
    return f"def f({parameters}):\n    return {expression}"


def task(family: str, spec: Spec) -> tuple[Item, Problem]:
    parameters, words, _ = spec
    code = solution(spec)
    namespace: dict[str, Callable[..., object]] = {}
    exec(code, namespace)  # our own text
    inputs = _inputs(family, spec, namespace["f"])
    outputs = tuple(namespace["f"](*args) for args in inputs)
    examples = [f"f({', '.join(map(repr, args))}) == {out!r}" for args, out in zip(inputs[:EXAMPLES], outputs, strict=False)]
    question = "\n".join([f"Write f({parameters}): {words}.", *examples])
    item_id = f"functions/{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    digest = hashlib.sha256(json.dumps([inputs, outputs]).encode()).hexdigest()
    tests = Calls(inputs[:EXAMPLES], inputs[EXAMPLES:], outputs, shown=EXAMPLES)
    return Item(item_id, question, code, {"type": family, "tests": digest}), Problem(item_id, "f", tests, digest, code)


def _inputs(family: str, spec: Spec, function: Callable[..., object]) -> tuple[Args, ...]:
    """EXAMPLES + HIDDEN different inputs, the first two with different results where there are such."""
    rng = random.Random(spec[2])
    drawn = [ARGUMENTS[family](spec, rng) for _ in range(60)]
    different = list({repr(args): args for args in drawn}.values())
    first = different.pop(0)
    other = next((at for at, args in enumerate(different) if function(*args) != function(*first)), 0)
    return (first, different.pop(other), *different[:HIDDEN])


def _arithmetic() -> Iterator[Spec]:
    """Two operations in a row on a, with small numbers or with b."""
    steps = [("plus", "+", n) for n in [*range(2, 21), "b"]] + [("minus", "-", n) for n in [*range(2, 21), "b"]]
    steps += (
        [("times", "*", n) for n in [*range(2, 10), "b"]]
        + [("over", "//", n) for n in range(2, 10)]
        + [("mod", "%", n) for n in range(2, 10)]
    )
    for (word, sign, n), (next_word, next_sign, m) in product(steps, steps):
        if (sign, next_sign) in (("//", "//"), ("%", "//"), ("*", "%")):
            continue  # mostly 0
        inner = f"a {sign} {n}"
        expression = f"{inner} {next_sign} {m}" if sign not in "+-" or next_sign in "+-" else f"({inner}) {next_sign} {m}"
        yield "a, b" if "b" in (n, m) else "a", f"a {word} {n}, then {next_word} {m}", expression


def _conditional() -> Iterator[Spec]:
    """One of two values, by a condition."""
    conditions = [(f"a is {word} {n}", f"a {sign} {n}") for word, sign in (("over", ">"), ("under", "<")) for n in [*range(2, 12), "b"]]
    conditions += [("a is even", "a % 2 == 0"), ("a is odd", "a % 2 == 1"), ("a is b", "a == b")]
    values = [("a", "a"), ("b", "b"), ("a plus b", "a + b"), ("a minus b", "a - b"), ("a times b", "a * b")]
    values += [
        (f"{name} {word} {n}", f"{name} {sign} {n}") for name in "ab" for word, sign in (("plus", "+"), ("times", "*")) for n in range(2, 7)
    ]
    for (when, condition), (yes, then), (no, otherwise) in product(conditions, values, values):
        if then != otherwise:
            yield "a, b", f"{yes} if {when}, else {no}", f"{then} if {condition} else {otherwise}"


def _lists() -> Iterator[Spec]:
    """Some numbers of a list, changed, and put together."""
    sources = [("xs", "xs"), ("xs reversed", "xs[::-1]"), ("xs sorted", "sorted(xs)")]
    sources += [
        (f"the {word} {n} of xs", f"xs[{start}{n}{end}]")
        for word, start, end in (("first", ":", ""), ("last", "-", ":"))
        for n in range(2, 5)
    ]
    wanted = [("", ""), (" if even", " if x % 2 == 0"), (" if odd", " if x % 2 == 1")]
    wanted += [(f" if {word} {n}", f" if x {sign} {n}") for word, sign in (("over", ">"), ("under", "<")) for n in range(2, 8)]
    changes = [("x", "x"), ("x squared", "x * x")]
    changes += [(f"x {word} {n}", f"x {sign} {n}") for word, sign in (("plus", "+"), ("minus", "-"), ("times", "*")) for n in range(2, 10)]
    for (of, source), (which, condition), (what, change) in product(sources, wanted, changes):
        if of != "xs" and which:
            continue
        each, words = f"{change} for x in {source}{condition}", f"{what} for each x of {of}{which}"
        if (what, which) != ("x", ""):
            yield "xs", f"the list of {words}", f"[{each}]"
        if of.endswith(("reversed", "sorted")):
            continue  # the order makes no difference below
        yield "xs", f"the sum of {words}", f"sum({each})"
        if not which:
            yield "xs", f"the largest {words}", f"max({each})"
        if what == "x" and which:
            yield "xs", f"the count of {words}", f"len([{each}])"


def _strings() -> Iterator[Spec]:
    """Two changes of a string in a row."""
    changes = [("reversed", "[::-1]"), ("in capitals", ".upper()")]
    changes += [(f"cut to its first {n}", f"[:{n}]") for n in range(2, 6)] + [(f"cut to its last {n}", f"[-{n}:]") for n in range(2, 6)]
    changes += [(f"without {x}", f".replace('{x}', '')") for x in LETTERS]
    changes += [(f"with {x} made {y}", f".replace('{x}', '{y}')") for x in LETTERS for y in LETTERS if x != y]
    ends = [(f"repeated {n} times", f" * {n}") for n in range(2, 5)] + [(f"its count of {x}", f".count('{x}')") for x in LETTERS]
    for (word, change), (next_word, next_change) in product(changes, changes + ends):
        gone = LETTERS if change == ".upper()" else change.removeprefix(".replace('")[:1]
        if not any(f"('{x}'" in next_change for x in gone):
            yield "s", f"s {word}, then {next_word}", f"s{change}{next_change}"


def _words() -> Iterator[Spec]:
    """Some words of a text, changed, and put together."""
    wanted = (
        [("", "")]
        + [(f" longer than {n}", f" if len(w) > {n}") for n in range(2, 4)]
        + [(f" shorter than {n}", f" if len(w) < {n}") for n in range(3, 5)]
    )
    wanted += [(f" with {x}", f" if '{x}' in w") for x in LETTERS] + [(f" starting with {x}", f" if w[0] == '{x}'") for x in LETTERS]
    changes = [("w", "w"), ("w reversed", "w[::-1]"), ("w in capitals", "w.upper()")]
    changes += [("the first of w", "w[0]"), ("the last of w", "w[-1]"), ("the length of w", "len(w)")]
    for (which, condition), (what, change) in product(wanted, changes):
        each, words = f"{change} for w in s.split(){condition}", f"{what} for each word w of s{which}"
        if change == "len(w)":
            yield "s", f"the sum of {words}", f"sum({each})"
        else:
            for mark in "-+/:=_":
                yield "s", f"{words}, joined with {mark}", f"'{mark}'.join({each})"


FAMILIES: dict[str, Callable[[], Iterator[Spec]]] = {
    "arithmetic": _arithmetic,
    "conditional": _conditional,
    "lists": _lists,
    "strings": _strings,
    "words": _words,
}


def _numbers(spec: Spec, rng: random.Random) -> Args:
    """a and b near the numbers that the function mentions, where conditions change."""
    near = [int(token) for token in spec[2].replace("(", " ").replace(")", " ").split() if token.isdigit()] or [5]
    drawn = [rng.choice([rng.randint(0, 20), max(0, rng.choice(near) + rng.randint(-1, 1))]) for _ in range(2)]
    if rng.random() < 0.15:
        drawn[1] = drawn[0]
    return tuple(drawn[: 1 + ("b" in spec[0])])


def _number_list(spec: Spec, rng: random.Random) -> Args:
    return ([rng.randint(0, 9) for _ in range(rng.randint(3, 5))],)


def _string(spec: Spec, rng: random.Random) -> Args:
    named = [x for x in LETTERS if f"'{x}'" in spec[2]]
    return ("".join(rng.choice(named) if named and rng.random() < 0.4 else rng.choice(LETTERS) for _ in range(rng.randint(4, 7))),)


def _text(spec: Spec, rng: random.Random) -> Args:
    return (" ".join(_string(spec, rng)[0][: rng.choice((2, 3, 4))] for _ in range(3)),)


ARGUMENTS: dict[str, Callable[[Spec, random.Random], Args]] = {
    "arithmetic": _numbers,
    "conditional": _numbers,
    "lists": _number_list,
    "strings": _string,
    "words": _text,
}
