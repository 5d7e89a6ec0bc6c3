r"""Caps on what may be evaluated: whether an answer is small enough for symbolic algebra, seen from its text in microseconds."""

# ruff: noqa: SIM905 (word lists read better as one string)
from __future__ import annotations

import re
from collections import Counter
from math import log10
from string import ascii_letters

from .numerals import MAX_DIGITS

MAX_LENGTH = 256  # characters of an answer after normalisation
MAX_DEPTH = 6  # of nested braces, brackets and parentheses
MAX_VALUE = 2000  # digits of a power, by an upper bound
MAX_ARGUMENT = 50  # digits of what a root or a function is applied to
MAX_EXPANSION = 100  # variables in a parenthesis times its exponent

COMMANDS = frozenset(
    "frac sqrt pi infty cup cap in notin pm mp cdot times div le ge ne sin cos tan cot sec csc arcsin arccos arctan arccot "
    "sinh cosh tanh log ln exp max min begin end text mathbb alpha beta gamma delta epsilon theta lambda mu nu xi rho sigma "
    "tau phi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell emptyset setminus binom overline vec hat tilde dot ddot lfloor "
    "rfloor lceil rceil langle rangle angle hbar measuredangle triangle mid equiv pmod".split()
)
GREEK = frozenset(r"\theta \alpha \beta \gamma \delta \phi \varphi \lambda \mu \omega \sigma \epsilon \rho \tau \psi".split())
WORDS = re.compile(r"\\mathbb ?\{[^}]*\}|\\text\{[^{}]*\}|\b(?:or|and|either|mod|to)\b")
MATRIX = re.compile(r"\\(?:begin|end)\{matrix\}")
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|[A-Za-z]|\S")
FUNCTIONS = frozenset(r"\sqrt \sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \log \ln \exp".split())
CLOSING = {"{": "}", "(": ")", "[": "]", "\\{": "\\}"}
AT_MOST = (  # how often tokens may occur that are dear to read or to evaluate
    (FUNCTIONS | {r"\max", r"\min"}, 8),
    ({r"\binom", "!"}, 6),
    ({r"\pm", r"\mp"}, 6),
    ({"'"}, 6),
    ({"|"}, 12),
    ({"_"}, 24),
    ({"("}, 24),
    ({"+", "-"}, 60),
    (frozenset(ascii_letters), 80),
)
SMALL = r" ?\{ ?(?:[0-9]{1,3}|[0-9]{0,2}[A-Za-z](?: ?[+-] ?(?:[0-9]{1,2}|[A-Za-z]))?) ?\}"
SMALL_PAIR = re.compile(SMALL + SMALL)
SMALL_POWER = re.compile(r"(?:[A-Za-z]|\\[a-z]+)\^[1-4]|[0-9]\^[A-Za-z]")  # in an exponent
ROOT = re.compile(r"-?(?:\\frac)?([0-9]{1,4})(?:/| )([0-9]{1,6})")  # an exponent that is a plain fraction


def admissible(answer: str) -> bool:
    """Whether a normalised answer is small enough to be handed to symbolic algebra.

    Refused without any work: more than 256 characters, or anything but printable ASCII; numbers beyond 40 digits; nesting
    beyond 6; more than AT_MOST of what is dear to read; commands outside COMMANDS (sums, products, integrals, limits ...) and
    environments but matrices; factorials and binomials of anything but unknowns and numbers below 1000; exponents that hold a
    power (but x^2 and 2^n), a factorial or more than four digits, unless they are a plain fraction; powers of powers; powers
    whose value may pass 2000 digits, 50 under a root or a function; parentheses whose expansion grows too large.
    """
    if not 0 < len(answer) <= MAX_LENGTH or not answer.isascii() or not answer.isprintable() or "**" in answer or "^^" in answer:
        return False
    if any(not SMALL_PAIR.match(rest) for rest in answer.split("\\binom")[1:]):
        return False
    tokens = TOKEN.findall(MATRIX.sub(" ", answer))
    counts = Counter(tokens)
    if any(sum(counts[token] for token in among) > most for among, most in AT_MOST) or (
        counts[","] > 6 and counts.keys() & {r"\max", r"\min", r"\setminus"}
    ):
        return False
    for token in tokens:
        if len(token) > (MAX_DIGITS if token[0].isdigit() else 2) and token[1:] not in COMMANDS:
            return False
        if token in (r"\begin", r"\end"):
            return False
    try:
        end, _, _ = _measure(tokens, 0, "", 0)
    except _Refused:
        return False
    return end == len(tokens)


class _Refused(Exception):
    """The answer is beyond the caps."""


def _measure(tokens: list[str], at: int, closing: str, depth: int) -> tuple[int, float, int]:
    """Read one group from `at` on: where it ends, and upper bounds of the digits of its value and of the variables in it."""
    if depth > MAX_DEPTH:
        raise _Refused
    digits, variables = 0.0, 0  # of the group so far
    term = (0.0, 0)  # the same of the term that a following ^ raises
    in_group = raised = False  # what came before: a group (adjacent ones are one term, as in \frac{a}{b}), an exponent
    function = False  # whether a root or a function is waiting for its argument, or has just had it
    while at < len(tokens):
        token, at = tokens[at], at + 1
        if token == closing or (token in ")]" and closing in (")", "]")):  # half-open intervals close either way
            return at, digits, variables
        if token in CLOSING:
            at, inner_digits, inner_variables = _measure(tokens, at, CLOSING[token], depth + 1)
            digits, variables = digits + inner_digits, variables + inner_variables
            same = in_group and token == "{"
            term = (term[0] + inner_digits, term[1] + inner_variables) if same else (inner_digits, inner_variables)
            in_group, raised = True, False
        elif token in CLOSING.values():
            raise _Refused
        elif token == "^":
            at, exponent = _exponent(tokens, at)
            size, expansion = term[0] * exponent, term[1] * exponent if in_group else 0
            if raised or size > MAX_VALUE or expansion > MAX_EXPANSION:
                raise _Refused
            digits, variables, term = digits + size, variables + expansion, (size, expansion)
            in_group, raised = False, True
        elif token == "!":
            of = tokens[at - 2] if at > 1 else ""
            if not (of.isdigit() or of.isalpha() or of == ")") or term[0] > 3 or tokens[at : at + 1] == ["!"]:
                raise _Refused
            term = (3 * 10 ** term[0], 0)
            digits, in_group, raised = digits + term[0], False, False
        else:
            in_group, raised = token in ("\\frac", "\\binom", "\\sqrt"), False
            if token[0].isdigit():
                term = (log10(max(float(token), 2)) + len(token.partition(".")[2]), 0)
            else:
                term = (300.0 if token == "\\binom" else 1.0, int(token.isalpha()))
            digits, variables = digits + term[0], variables + term[1]
        if function and token not in FUNCTIONS and term[0] > MAX_ARGUMENT:
            raise _Refused
        function = token in FUNCTIONS or (function and token == "^")
    if closing:
        raise _Refused
    return at, digits, variables


def _exponent(tokens: list[str], at: int) -> tuple[int, int]:
    """Read the exponent at `at`: where it ends and an upper bound of its size."""
    end, depth = at, 0
    while end < len(tokens):
        depth += {"{": 1, "}": -1}.get(tokens[end], 0)
        end += 1
        if depth <= 0:
            break
    inner = [token for token in tokens[at:end] if token not in "{}"]
    if depth == 0 and (root := ROOT.fullmatch(" ".join(inner).replace(" / ", "/").replace("\\frac ", "\\frac").replace("- ", "-"))):
        return end, 1 + int(root.group(1)) // max(1, int(root.group(2)))
    numerals = "".join(token for token in inner if token[0].isdigit())
    if depth == 0 and len(inner) == 1 and numerals and len(numerals) <= 8 and float(numerals) < 10_000:
        return end, int(float(numerals)) + (not numerals.isdigit())
    if depth != 0 or not inner or len(numerals) > 4 or any(token in ("!", "\\binom", "\\exp") for token in inner):
        raise _Refused
    if any(token == "^" and not SMALL_POWER.fullmatch("".join(inner[max(0, at - 1) : at + 2])) for at, token in enumerate(inner)):
        raise _Refused
    return end, 10 ** len(numerals)  # sums, products and quotients of these digits are no larger


def variables(answer: str) -> frozenset[str]:
    """The unknowns of a normalised answer: its letters and Greek letters but i and e, leaving out words."""
    plain = WORDS.sub(" ", MATRIX.sub(" ", answer))
    return frozenset(token for token in TOKEN.findall(plain) if token.isalpha() or token in GREEK) - {"i", "e"}
