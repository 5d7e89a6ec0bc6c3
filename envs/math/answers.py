r"""What a response answers: extraction, one spelling for one answer, exact numbers, and caps on what may be evaluated.

Everything here is plain text processing in time linear in the input: no symbolic algebra, nothing that a hostile response
can make expensive. docs/math-grading.md lists the rules for readers.
"""

# ruff: noqa: SIM905 (word lists read better as one string)
from __future__ import annotations

import re
from fractions import Fraction
from math import log10

WINDOW = 100_000  # characters from the end of a response in which a box or #### is looked for
STATED = 4_000  # the same for "the answer is" and plain numbers
MAX_WRITTEN = 1024  # characters of an answer as it is written
MAX_LENGTH = 256  # characters of it after normalisation
MAX_DIGITS = 40  # of one number
MAX_DEPTH = 6  # of nested braces, brackets and parentheses
MAX_VALUE = 2000  # digits of a power, by an upper bound
MAX_ARGUMENT = 50  # digits of what a root or a function is applied to
MAX_EXPANSION = 100  # variables in a parenthesis times its exponent

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(\{)?")
ANSWER_IS = re.compile(r"answer\s+is\b\s*:?", re.IGNORECASE | re.ASCII)
PLAIN_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++"
LAST_NUMBER = re.compile(rf"(?<![\w.])-?\$?(?:{PLAIN_NUMBER})(?:/[0-9]++)?(?!\d)|-?\\[dt]?frac\{{-?[0-9]++\}}\{{[0-9]++\}}")


# ---------------------------------------------------------------------------------------------------------------- extraction


def extract_answer(response: str) -> str | None:
    r"""The answer that a response commits to, as written, or None.

    Tried in this order, the last occurrence of each: `\boxed{...}`, GSM8K's `####`, "the answer is", a plain number. The
    first kind that occurs decides: where a box is written only the box counts, even an empty or unclosed one (None).
    Several different boxes on one line are a list, so `\boxed{1} or \boxed{2}` answers "1, 2".
    """
    text = response[-WINDOW:]
    if (last := max(text.rfind("\\boxed"), text.rfind("\\fbox"))) >= 0:
        return _boxed(text, text.rfind("\n", 0, last) + 1)
    if "####" in text:
        return _line(text.rpartition("####")[2]) or None
    if stated := list(ANSWER_IS.finditer(text[-STATED:])):
        return _stated(text[-STATED:][stated[-1].end() :])
    numbers = LAST_NUMBER.findall(text[-STATED:])
    return numbers[-1] if numbers else None


def _boxed(text: str, start: int) -> str | None:
    """The contents of the boxes from `start` on: one answer, or a list where they differ."""
    found: dict[object, str] = {}  # by value, so that 15\\frac{39}{40} or \\frac{639}{40} is one answer
    while box := BOX.search(text, start):
        end = _closing_brace(text, box.end()) if box.group(1) else None
        if end is None:
            return None
        inner = text[box.end() : end].strip()
        while (nested := BOX.match(inner)) and inner.endswith("}"):
            inner = inner[nested.end() : -1].strip()
        spelling = normalise(inner)
        value = number(spelling)
        found.setdefault(spelling if value is None else value, inner)
        if sum(map(len, found.values())) > MAX_LENGTH:  # no answer any more, however it goes on
            break
        start = end
    return ", ".join(found.values()) or None


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace that was opened just before `start` closes, if not too far on; escaped braces do not count."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start : start + MAX_WRITTEN], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return start + match.start()
    return None


def _line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _stated(text: str) -> str | None:
    """What follows "the answer is": its formula if it starts with one, else up to the end of the sentence."""
    line = _line(text).strip("*: ")
    formula = re.match(r"\$([^$]+)\$|\\\((.+?)\\\)", line)
    if formula:
        return formula.group(1) or formula.group(2)
    return re.split(r"\.(?:\s|$)", line, maxsplit=1)[0].strip("*: ") or None


# ------------------------------------------------------------------------------------------------------------- normalisation

LOOKALIKES = str.maketrans({"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
                            "∪": r"\cup ", "°": "", "€": "$", "£": "$"})  # fmt: skip
SPACING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|q?quad)(?![A-Za-z])|(?<!\\)\\[;:> ]|~|\\[hv]?phantom\s*(?:\{[^{}]*\}|\S)")
GROUPING = re.compile(r"(?<=[0-9])\s*(?:\\,|\\!|,\s*\\!|\{,\})\s*(?=[0-9]{3}(?![0-9]))")  # between groups of three digits
SIGNS = re.compile(r"\\?[$%]|\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")  # currency, percent, degrees
TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf)\s*\{([^{}]*)\}")
TEXT_UNIT = re.compile(r"(?<=[0-9}\])a-z])\s*\\(?:text(?:normal|rm)?|mbox|mathrm)\s*\{([A-Za-z .]*)\}(?:\s*\^\s*\{?[23]\}?)?\s*\.?$")
PLAIN_UNIT = re.compile(r"(?<=[0-9}\])])\s+((?:[A-Za-z]{3,}|[ckm]m|[km]g|ft|in|lb|oz|mi|hr)(?: +[A-Za-z ]+)?)(?:\s*\^\s*\{?[23]\}?)?\.?$")
NOT_UNITS = frozenset(
    "i e pi or and to plus minus times over choose squared cubed factorial point half quarter third dozen hundred thousand million billion "
    "trillion am pm sqrt frac sin cos tan cot sec csc log exp mod not".split()
)


def normalise(answer: str) -> str:
    r"""One spelling for one answer: `\dfrac12` is `\frac{1}{2}`, `1,\!000` is `1000`; currency, percent, degrees and units go."""
    text = answer.strip().translate(LOOKALIKES)
    if "\\" in text or "{" in text:
        if text.startswith((r"\(", r"\[")) and text.endswith((r"\)", r"\]")):
            text = text[2:-2]
        text = GROUPING.sub("", text).replace("\\!", "").replace("\\,", " ").replace("\\varnothing", "\\emptyset")
        text = SPACING.sub(" ", text)
        text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
        text = re.sub(r"\\frac\s*(\\pi|[0-9]|(?<=\s)[A-Za-z])", r"\\frac{\1}", text)
        text = re.sub(r"\\frac\s*(\{(?:[^{}]|\{[^{}]*\})*\})\s*(\\pi|[0-9A-Za-z])", r"\\frac\1{\2}", text)
        text = re.sub(r"\\sqrt\s*([0-9])", r"\\sqrt{\1}", text)
        text = re.sub(r"^\s*\\approx|(?<=\S)\s*\\approx.*", "", text, flags=re.DOTALL)
        if (unit := TEXT_UNIT.search(text)) and _is_unit(unit.group(1)):
            text = text[: unit.start()]
    text = SIGNS.sub("", text)
    if " " in text and (unit := PLAIN_UNIT.search(text)) and _is_unit(unit.group(1)):
        text = text[: unit.start()]
    return " ".join(text.split()).rstrip(".").rstrip()


def _is_unit(text: str) -> bool:
    return not NOT_UNITS.intersection(text.lower().replace(".", "").split())


def same_spelling(first: str, second: str) -> bool:
    """Whether two normalised answers differ in white space at most."""
    return first.replace(" ", "") == second.replace(" ", "")


def words(answer: str) -> bool:
    r"""Whether a normalised answer is in words: all of it in `\text{}`, or letters with at least one run of four."""
    if match := TEXT.fullmatch(answer):
        return number(match.group(1).strip()) is None
    plain = TEXT.sub(r"\1", answer)
    letters = re.fullmatch(r"(?:[^\W\d_]|[\s,.'()-])+", plain) is not None
    return letters and (plain != answer or re.search(r"[^\W\d_]{4}", plain) is not None)


def same_words(first: str, second: str) -> bool:
    """Whether two answers in words agree, whatever their case, white space, `\\text{}` and the parentheses of a choice such as (B)."""
    return _folded(first) == _folded(second)


def _folded(text: str) -> str:
    plain = "".join(TEXT.sub(r"\1", text).casefold().split()).strip(".,")
    return plain[1:-1] if re.fullmatch(r"\([a-z]\)", plain) else plain


# ------------------------------------------------------------------------------------------------------------------- numbers

DECIMAL = re.compile(rf"([+-]?) ?({PLAIN_NUMBER}|[0-9]++\.)")
FRACTION = re.compile(r"([+-]?) ?(?:([0-9]+) ?)?\\frac ?\{([+-]?)([0-9]+)\} ?\{([0-9]+)\}|([+-]?) ?(?:([0-9]+) )?()([0-9]+) ?/ ?([0-9]+)")
REPEATING = re.compile(r"([+-]?) ?([0-9]*)\.([0-9]*)\\overline ?\{([0-9]+)\}")
POWER_OF_TEN = re.compile(r" ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{ ?([+-]?[0-9]{1,2}) ?\}|([0-9])(?![0-9]))")
IN_BASE = re.compile(r"([0-9A-Z]+)_(?:\{([0-9]{1,2})\}|([0-9]))")


def number(answer: str) -> Fraction | None:
    r"""The exact value of a normalised numeral, or None.

    Integers, decimals (repeating ones with `\overline`), fractions and mixed numbers (`10\frac{1}{12}` is 121/12), with
    thousands separators or a power of ten; never a sum, product, root or other power: those are unfinished work.
    ASCII digits only, at most 40 of them.
    """
    if not answer or answer[0] not in "+-.0123456789\\":
        return None
    for read in (_fraction, _repeating, _decimal):
        if result := read(answer):
            value, end = result
            return value if end == len(answer) else None
    return None


def _decimal(answer: str) -> tuple[Fraction, int] | None:
    match = DECIMAL.match(answer)
    if not match or len(match.group(2)) > MAX_DIGITS:
        return None
    value = Fraction(match.group(1) + match.group(2).replace(",", "").rstrip("."))
    if scale := POWER_OF_TEN.match(answer, match.end()):
        return value * Fraction(10) ** int(scale.group(1) or scale.group(2)), scale.end()
    return value, match.end()


def _fraction(answer: str) -> tuple[Fraction, int] | None:
    match = FRACTION.match(answer) if "/" in answer or "\\frac" in answer else None
    if not match or match.end() > 3 * MAX_DIGITS:
        return None
    sign, whole, inner, above, below = match.groups()[:5] if match.group(5) else match.groups()[5:]
    if int(below) == 0 or (whole and inner):
        return None
    value = int(whole or 0) + Fraction(int(above), int(below))
    return -value if (sign == "-") != (inner == "-") else value, match.end()


def _repeating(answer: str) -> tuple[Fraction, int] | None:
    match = REPEATING.match(answer) if "\\overline" in answer else None
    if not match or match.end() > MAX_DIGITS:
        return None
    sign, whole, fixed, period = match.groups()
    value = Fraction(int(whole + fixed + period or 0) - int(whole + fixed or 0), 10 ** len(fixed) * (10 ** len(period) - 1))
    return -value if sign == "-" else value, match.end()


def in_base(answer: str) -> tuple[str, str] | None:
    """`204_5` as (digits, base); None for anything else."""
    match = IN_BASE.fullmatch(answer.replace(" ", ""))
    return (match.group(1), match.group(2) or match.group(3)) if match else None


# ---------------------------------------------------------------------------------------------------------------------- caps

COMMANDS = frozenset(
    "frac sqrt pi infty cup cap in notin pm mp cdot times div le leq ge geq lt gt ne neq sin cos tan cot sec csc arcsin arccos "
    "arctan log ln exp begin end text textbf textrm textnormal textit mbox mathrm mathbf mathbb theta alpha beta gamma delta phi "
    "varphi lambda mu omega sigma epsilon rho tau psi emptyset varnothing setminus binom overline lfloor rfloor lceil rceil "
    "lvert rvert vert lbrace rbrace angle triangle".split()
)
GREEK = frozenset(r"\theta \alpha \beta \gamma \delta \phi \varphi \lambda \mu \omega \sigma \epsilon \rho \tau \psi".split())
MATRIX = re.compile(r"\\(?:begin|end) ?\{[pbv]?matrix\}")
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|[A-Za-z]|\S")
FUNCTIONS = frozenset(r"\sqrt \sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \log \ln \exp".split())
CLOSING = {"{": "}", "(": ")", "[": "]", "\\{": "\\}"}
INTEGER_PAIR = re.compile(r" ?\{ ?[0-9]{1,3} ?\} ?\{ ?[0-9]{1,3} ?\}")


def admissible(answer: str) -> bool:
    """Whether a normalised answer is small enough to be handed to symbolic algebra.

    Refused without any work: more than 256 characters, or anything but printable ASCII; numbers beyond 40 digits; nesting
    beyond 6; commands outside COMMANDS (sums, products, integrals, limits ...) and environments but matrices; factorials and
    binomials of anything but numbers below 1000; exponents that hold a power, a factorial or more than four digits; powers
    of powers; powers whose value may pass 2000 digits, 50 under a root or a
    function; parentheses whose expansion grows too large.
    """
    if not 0 < len(answer) <= MAX_LENGTH or not answer.isascii() or not answer.isprintable() or "**" in answer or "^^" in answer:
        return False
    if any(not INTEGER_PAIR.match(rest) for rest in answer.split("\\binom")[1:]):
        return False
    tokens = TOKEN.findall(MATRIX.sub(" ", answer))
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
            term = (term[0] + inner_digits, term[1] + inner_variables) if in_group else (inner_digits, inner_variables)
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
            if not tokens[at - 2].isdigit() or len(tokens[at - 2]) > 3 or tokens[at : at + 1] == ["!"]:
                raise _Refused
            term = (3 * float(tokens[at - 2]), 0)
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
    numerals = "".join(token for token in inner if token[0].isdigit())
    if depth != 0 or not inner or len(numerals) > 4 or any(token in ("^", "!", "\\binom", "\\exp", "\\log", "\\ln") for token in inner):
        raise _Refused
    if len(inner) == 1 and numerals.isdigit():
        return end, int(numerals)
    return end, 10 ** len(numerals)  # sums, products and quotients of these digits are no larger


def variables(answer: str) -> frozenset[str]:
    """The unknowns of a normalised answer: its letters and Greek letters but i and e, leaving out words."""
    plain = re.sub(r"\\mathbb ?\{[^}]*\}", " ", TEXT.sub(" ", MATRIX.sub(" ", answer)))
    return frozenset(token for token in TOKEN.findall(plain) if token.isalpha() or token in GREEK) - {"i", "e"}
