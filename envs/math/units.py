r"""Units go: `12\text{ km/h}`, `12cm`, `12 (days)` and `36\sqrt{7}cm^{3}` are 12 and `36\sqrt{7}`. Words that change the value stay."""

# ruff: noqa: SIM905 (word lists read better as one string)
from __future__ import annotations

import re
from fractions import Fraction

SYMBOLS = frozenset(  # stripped wherever they follow a number, also without a space
    "mm cm dm km nm sq cu ft yd mi lb lbs oz kg mg km/h kmh kph mph rpm Hz kHz MHz GHz kJ kW kWh kPa MPa Pa cc ml mL dL hr "
    "hrs min sec mol eV MeV keV GeV rad deg pts USD units".split()
)
WRITTEN_OUT = frozenset(
    "mile miles foot feet inch inches yard yards meter meters metre metres centimeter centimeters kilometer kilometers day "
    "days week weeks month months year years hour hours minute minutes second seconds dollar dollars cent cents degree "
    "degrees unit units pound pounds gram grams kilogram kilograms liter liters litre litres percent people students apples "
    "points ways square sq cubic per".split()
)
PRODUCTS = frozenset("mg hr mi".split())  # also products of variables: 2mg is a weight
LETTERS = "msghlLJNWVAKCFTd"  # units of one letter, which are variables unless \text says otherwise
TAIL = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z]++|\^ ?\{-?[0-9]\}|\^ ?-?[0-9]|[ /().*²³-]|\\cdot(?![A-Za-z]))++$")
TOKEN = re.compile(r"\\text\{[^{}]*\}|[A-Za-z]+\.?|\^ ?\{?-?[0-9]\}?|[²³]|\\cdot| +|.")
FRACTION_OF_UNITS = re.compile(r"\\frac\{(\\text\{[^{}]*\})\}\{(\\text\{[^{}]*\}|[a-zA-Z])\}$")
LETTER_UNIT = r"(?:(?:\\mu ?|[numcdkhMG])?(?:m(?:ol)?|s|g|[LlJNWVAK]|Pa|Hz|eV|\\Omega)|h|hr|min|mi|in|d|ft|lb)"
SYMBOL = rf"(?:{LETTER_UNIT}|\\text\{{ ?{LETTER_UNIT} ?\}})(?: ?\^ ?\{{?-?[0-9]\}}?)?"
PRODUCT = rf"{SYMBOL}(?:(?: ?[/*] ?| ?\\cdot ?| ){SYMBOL}){{0,5}}"
BARE = re.compile(rf"(.*?[0-9}}\])]) ?(?:{PRODUCT}|\\frac ?\{{{PRODUCT}\}} ?\{{{PRODUCT}\}})", re.DOTALL)

FACTOR = re.compile(r"(.*[0-9}]) ?(?:\\text\{ ?)?([a-z]+)(?: (?:dollars|people|miles|years|km|meters|units))?\}?", re.DOTALL)
FACTORS = {
    word: Fraction(value)
    for word, value in {"ten": 10, "dozen": 12, "hundred": 100, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7,
                        "billion": 10**9, "trillion": 10**12, "half": Fraction(1, 2), "quarter": Fraction(1, 4), "third": Fraction(1, 3),
                        "fifth": Fraction(1, 5)}.items()
}  # fmt: skip
NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
NOT_UNITS = frozenset(
    "i e pi or and to plus minus times over choose squared cubed factorial point dozen dozens hundred hundreds thousand "
    "thousands lakh lakhs lac lacs crore crores half halves quarter quarters myriad gross am pm noon midnight sqrt frac sin "
    "cos tan cot sec csc log ln exp mod modulo base not less more than divided multiplied by negative mil mn bn k".split()
    + "mille permil permille tens score kilo mega giga if for when where such that with is are odd even integer integers real".split()
    + NUMBER_WORDS
)
ANOTHER_NUMBER = re.compile(r"(?<![A-Za-z0-9^{-])[0-9]")  # 3 hours 45 minutes is not 3
SCALE = re.compile(
    r"(?:\w*illi(?:on|ard)(?:th)?s?|\w*(?:hundred|thousand)th?s?|thirds?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|elevenths?|twelfths?|\w+te?enths?|\w+tieths?)"
)


def without_unit(text: str) -> str:
    """A normalised answer without the unit at its end, if it has one."""
    if "\\frac{\\text" in text:
        text = FRACTION_OF_UNITS.sub(r"\1/\2", text)
    tail = TAIL.search(text, max(0, len(text) - 100))
    if tail is None:
        return text
    tokens = TOKEN.findall(tail.group())
    start = tail.start()
    for at, token in enumerate(tokens):
        before = text[:start].rstrip()
        if _may_follow(before, token) and is_unit(tokens[at:], glued=start > 0 and text[start - 1] != " "):
            return before
        start += len(token)
    return text


def _may_follow(before: str, token: str) -> bool:
    if not before:
        return False
    return before[-1] in "0123456789}])" or before.endswith("\\pi") or (token.startswith("\\text") and before[-1].isalnum())


def is_unit(tokens: list[str], glued: bool) -> bool:
    r"""Whether tokens are a unit: words and symbols that do not change the value, with powers, slashes and parentheses."""
    while tokens and (tokens[0].isspace() or tokens[0] == "/"):
        tokens, glued = tokens[1:], False
    if tokens and tokens[0] == "(":
        if ")" not in tokens:
            return False
        tokens = [token for token in tokens[1:] if token != ")"]
        glued = False
    if not tokens or not (tokens[0][0].isalpha() or tokens[0].startswith("\\text")):
        return False
    for at, token in enumerate(tokens):
        if token.startswith("\\text"):
            if not _words_are_unit(token[6:-1]):
                return False
        elif token[0].isalpha():
            slashed = "/" in tokens[1:at] or (token in LETTERS and "/" in tokens and not glued)
            if not _bare_word_is_unit(token.rstrip("."), glued, slashed):
                return False
        if token in "()":
            return False
        glued = glued and not (token.isspace() or token == "/" or token.startswith("\\text"))
    return True


def _bare_word_is_unit(word: str, glued: bool, slashed: bool) -> bool:
    """Whether letters that may be variables are a unit: symbols and common words, any word after a space, any letters beside a slash."""
    known = word in SYMBOLS or word in WRITTEN_OUT
    if glued and (not known or word in PRODUCTS):
        return False
    return (known or slashed or len(word) > 2 or word == "in") and _words_are_unit(word)


def _words_are_unit(text: str) -> bool:
    words = re.findall(r"[a-z]+", text.replace("K", "kelvin").lower().replace(".", ""))
    letters = re.fullmatch(r"[A-Za-z0-9 .,'/()^{}~²³*-]*", text) is not None and not ANOTHER_NUMBER.search(text)
    return letters and bool(words) and not NOT_UNITS.intersection(words) and not any(SCALE.fullmatch(word) for word in words)


def scaled(text: str) -> tuple[str, Fraction] | None:
    r"""`7\text{ million dollars}` as what stands before the word, and the factor that it means. None for anything else."""
    match = FACTOR.fullmatch(text)
    if match is None:
        return None
    word = match.group(2)
    ones = FACTORS.get(word.rstrip("s")) or FACTORS.get(word)
    parts = FACTORS.get(word.rstrip("s").removesuffix("th")) if word.rstrip("s").endswith("th") else None
    return (match.group(1), ones) if ones else (match.group(1), 1 / parts) if parts else None


def without_bare_unit(text: str) -> str:
    """The same for units that may be variables (`12m`): only for an answer to a gold that is a number."""
    match = BARE.fullmatch(text)
    return match.group(1) if match else text


def without_named_unit(text: str, unit: str) -> str:
    """An answer without a certain unit at its end, however it is set."""
    plain, wanted = _flat(text), _flat(unit)
    return plain[: -len(wanted)] if wanted and plain.endswith(wanted) and plain != wanted else text


def _flat(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|mbox|operatorname)\s*\{([^{}]*)\}", r"\1", text.replace("$", ""))
    return re.sub(r"\\[,;:! ]|~|\s", "", text).rstrip(".")
