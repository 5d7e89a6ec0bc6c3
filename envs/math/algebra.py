r"""Two formulas compared: read by latex2sympy, compared exactly or to many digits. Runs in the worker program only (program.py).

Nothing is folded and nothing is rounded: letters keep their case, decimals stand for themselves. Numbers are equal where they
are equal as rationals, or agree to at least 50 significant digits (12 where a decimal is compared with an irrational number).
Formulas with unknowns are equal where they agree at several points.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import sympy
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from sympy.core.function import AppliedUndef

Value = Any  # a sympy Expr, Set or matrix

DIGITS = 60  # of a comparison; more where the numbers are longer
MAX_DIGITS = 4000
POINTS = (  # values of the unknowns: n-th unknown takes the n-th value, round and round; positive, negative and mixed
    (sympy.Rational(7919, 5303), sympy.Rational(8928, 5303), sympy.Rational(3571, 1409), sympy.Rational(641, 1153)),
    (sympy.Rational(523, 1801), sympy.Rational(2749, 907), sympy.Rational(1223, 2003), sympy.Rational(3001, 1301)),
    (sympy.Rational(29, 7), sympy.Rational(17, 31), sympy.Rational(61, 13), sympy.Rational(71, 37)),
    (sympy.Rational(-1621, 1087), sympy.Rational(-907, 2503), sympy.Rational(-3011, 2011), sympy.Rational(-577, 769)),
    (sympy.Rational(1297, 1013), sympy.Rational(-2129, 1721), sympy.Rational(1931, 2297), sympy.Rational(-613, 349)),
    (sympy.Rational(-1181, 1747), sympy.Rational(1553, 2381), sympy.Rational(-2617, 1217), sympy.Rational(2069, 1171)),
)

LETTERS = {"I": r"\text{capitalI}", "E": r"\text{capitalE}", "e": r"\text{smalle}"}  # neither imaginary unit nor exponent
REWRITTEN = (  # what latex2sympy would read as something else
    (re.compile(r"\\frac ?\{ ?d ?([A-Za-z]) ?\} ?\{ ?d ?([A-Za-z]) ?\}"), r"\\text{d\1over\2}"),
    (re.compile(r"(?<![A-Za-z_])(\d+(?:\.\d+)?)[eE]([+-]?\d+)"), r"\1\\cdot10^{\2}"),
    (re.compile(r"\\gamma(?![a-z])"), r"\\text{smallgamma}"),
    (re.compile(r"\\hbar(?![a-z])"), r"\\text{hbar}"),
    (re.compile(r"\\Gamma(?![a-z])"), r"\\text{largegamma}"),
    (re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|[IE]|e(?=_)"), lambda letter: LETTERS.get(letter.group()) or letter.group()),
    (re.compile(r"(?<![A-Za-z\\{])d(?=[A-Za-z])"), r"d \\cdot "),
    (re.compile(r"(?<=[A-Za-z])'{1,3}"), lambda prime: f"_{{{'p' * len(prime.group())}}}"),
    (re.compile(r"_ ?\{ ?([A-Za-z0-9]) ?\}"), r"_\1 "),
    (re.compile(r"\\(overline|vec|hat|tilde|d?dot) \{"), r"\\\1{"),
    (re.compile(r"(?<![\w.}^_)])(\d+) ?\\frac ?\{(\d+)\} ?\{(\d+)\}"), lambda mixed: _mixed(*mixed.groups())),
    (re.compile(r"(?<![\w.^_])(\d+(?:\.\d+)?) ?(?=\(|\\(?:binom|frac|sqrt)(?![a-z]))"), r"\1\\cdot "),
    (re.compile(r"\\text\{ ?([A-Za-z]+) ?\}"), r"\\text{\1}"),
    (re.compile(r"\\(sin|cos|tan|cot|sec|csc|ln|log) ?(\d+) ?\\(sin|cos|tan|cot|sec|csc)"), r"\\\1{\2}\\\3"),
    (re.compile(r"\\log ?_ ?\{? ?(\w+) ?\}? ?"), r"\\log_{\1} "),
    (re.compile(r"\\arccot(?![a-z])"), r"\\operatorname{arccot}"),
    (
        re.compile(r"(\\(?:text|overline|vec|hat|tilde|d?dot)\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z])( ?_ ?(?:[A-Za-z0-9]|\{[^{}]*\}))?"),
        lambda symbol: _symbol(symbol),
    ),
)
GREEK_LETTER = re.compile(r"\\(?:alpha|beta|delta|epsilon|theta|lambda|mu|nu|xi|rho|sigma|tau|phi|psi|omega|pi)")
SHORT = 40  # characters of a formula that is read again with unbounded look-ahead


class _Reader(_Latex2Sympy):
    """latex2sympy with a look-ahead (SLL) that is remembered from formula to formula. What it accepts it reads as the other (LL) does."""

    mode = PredictionMode.SLL

    def create_parser(self, latex_str: str) -> Any:
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = self.mode
        return parser


class Unreadable(ValueError):
    """A formula that cannot be read."""


def _mixed(whole: str, above: str, below: str) -> str:
    mixed = int(above) < int(below)
    return f"({whole}+\\frac{{{above}}}{{{below}}})" if mixed else f"{whole}\\cdot\\frac{{{above}}}{{{below}}}"


def _symbol(symbol: re.Match[str]) -> str:
    """`x^2` as `{x}^2` and `x_n` as `x_{n}^{1}`: else the reader looks ahead for what may follow, as far as the formula goes."""
    name, index = symbol.groups()
    if len(name) > 1 and name[-1] != "}" and not GREEK_LETTER.fullmatch(name):
        return symbol.group()
    following = symbol.string[symbol.end() :].lstrip()[:1]
    if not index:
        return f"{{{name}}}" if following == "^" else name
    letter = index.strip(" _{}")
    index = f"_{{{letter}}}" if len(letter) == 1 and letter.isalpha() else index
    return name + index + ("" if following in ("^", "(") else "^{1}")


def _read(written: str) -> Value:
    reader = _Reader(config=ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False))
    try:
        return reader.parse(written)
    except Exception:
        if len(written) > SHORT:
            raise
        reader.mode = PredictionMode.LL
        return reader.parse(written)


@functools.lru_cache(maxsize=4096)
def value(text: str) -> tuple[Value, bool]:
    """What a formula is, and whether a decimal is written in it. Raises Unreadable."""
    written = text
    for pattern, replacement in REWRITTEN:
        written = pattern.sub(replacement, written)
    try:
        read = _read(normalize_latex(written, NormalizationConfig()))
        if not isinstance(read, sympy.Basic) and not isinstance(read, sympy.MatrixBase):
            raise Unreadable(text)
        if isinstance(read, (sympy.MatrixBase, sympy.Set)):
            return read, False
        if not isinstance(read, sympy.Expr):
            raise Unreadable(text)
        floats = {number: sympy.Rational(str(number)) for number in read.atoms(sympy.Float)}
        functions = {call: sympy.Symbol(str(call)) for call in read.atoms(AppliedUndef)}
        known = {sympy.Symbol("i"): sympy.I}
        found = read.xreplace(floats | functions).doit()
        if "\\sqrt[" in written or "\\sqrt [" in written:  # odd roots of negative numbers are real
            found = found.xreplace({power: _real_power(power) for power in found.atoms(sympy.Pow)})
        return found.xreplace(known).doit(), bool(floats)
    except Unreadable:
        raise
    except RecursionError:
        raise
    except Exception as error:  # the reader and sympy raise all kinds on what is no mathematics
        raise Unreadable(text) from error


def _real_power(power: sympy.Pow) -> Value:
    base, exponent = power.args
    if not (base.is_negative and exponent.is_Rational and exponent.q % 2):  # type: ignore[union-attr]
        return power
    return (-1) ** exponent.p * (-base) ** exponent  # type: ignore[union-attr,operator]


def constant(expression: Value) -> bool:
    return isinstance(expression, sympy.Expr) and not expression.free_symbols


def same_value(gold: str, answer: str, absolute: float = 0.0, relative: float = 0.0) -> bool:
    """Whether two formulas are equal, or within the tolerance where both are numbers. Raises Unreadable."""
    (one, rough), (other, also_rough) = value(gold), value(answer)
    if isinstance(one, sympy.MatrixBase) or isinstance(other, sympy.MatrixBase):
        return (
            type(one) is type(other)
            and one.shape == other.shape
            and all(equal(a, b) for a, b in zip(one.flat(), other.flat(), strict=True))
        )
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return one == other
    return equal(one, other, rough or also_rough, absolute, relative)


def equal(one: Value, other: Value, rough: bool = False, absolute: float = 0.0, relative: float = 0.0) -> bool:
    """The same of two expressions; `rough`: a decimal is written in one of them."""
    if (absolute or relative) and constant(one) and constant(other):
        distance, size = sympy.Abs(one - other).evalf(30), sympy.Abs(one).evalf(30)
        return bool(distance.is_number and distance <= max(absolute, relative * size) * (1 + 1e-9))
    if one == other:
        return not one.has(sympy.nan, sympy.zoo)
    if one.is_Rational and other.is_Rational:
        return False
    unknowns = _unknowns(one, other)
    if not _agree(one, other, unknowns, DIGITS, rough):
        return False
    return bool(unknowns) or rough or (digits := _digits(one, other)) == DIGITS or _agree(one, other, unknowns, digits, rough)


def _agree(one: Value, other: Value, unknowns: list, digits: int, rough: bool) -> bool:
    """Whether two expressions agree to a number of digits, at all points where both have a value."""
    agreements = 0
    for values in POINTS if unknowns else POINTS[:1]:
        first, second = (_number(expression, _point(unknowns, values), digits) for expression in (one, other))
        if first is None or second is None:
            continue
        if bool(first[1]) != bool(second[1]) and unknowns:  # one of them is not real here, so this point is outside of its domain
            continue
        if not _close(first, second, 12 if rough else digits - 10):
            return False
        agreements += 1
    return agreements >= (3 if unknowns else 1)


def proportional(gold: tuple[str, str], answer: tuple[str, str]) -> int:
    """The sign of the constant by which the differences of two sides differ; 0 where they are not proportional. Raises Unreadable."""
    sides = [value(text)[0] for text in (*gold, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return 0
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    unknowns = _unknowns(one, other)
    if not unknowns or one.free_symbols != other.free_symbols:
        return 0
    ratios = []
    for values in POINTS:
        first, second = (_number(difference, _point(unknowns, values), DIGITS) for difference in (one, other))
        if first is None or second is None:
            continue
        if first == (0, 0) or second == (0, 0) or first[1] or second[1]:
            return 0
        ratios.append((first[0] / second[0], sympy.S.Zero))
    if len(ratios) < 3 or not all(_close(ratios[0], ratio, DIGITS - 15) for ratio in ratios):
        return 0
    return 1 if ratios[0][0] > 0 else -1


def _unknowns(*expressions: Value) -> list:
    return sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)


def _point(unknowns: list, values: tuple) -> tuple:
    return tuple((unknown, values[at % len(values)] + at // len(values)) for at, unknown in enumerate(unknowns))


def _digits(*expressions: Value) -> int:
    """As many digits as it takes to tell numbers of this length apart."""
    longest = max((abs(part.p).bit_length() + part.q.bit_length() for one in expressions for part in one.atoms(sympy.Rational)), default=0)
    return min(MAX_DIGITS, DIGITS + int(longest * 0.7))


@functools.lru_cache(maxsize=4096)
def _number(expression: Value, point: tuple, digits: int) -> tuple[Value, Value] | None:
    """Real and imaginary part at a point, each zero where it cancels; None where there is no number."""
    try:
        found = expression.evalf(digits, subs=dict(point)) if point else expression.evalf(digits)
        parts = found.as_real_imag()
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    if found.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or not all(part.is_Number for part in parts):
        return (found, sympy.S.Zero) if found in (sympy.oo, -sympy.oo) else None
    real, imaginary = (part if part.is_Rational or part._prec > 40 else sympy.S.Zero for part in parts)
    return real, imaginary


def _close(one: tuple, other: tuple, digits: int) -> bool:
    if one == other:
        return True
    if not all(part.is_finite for part in (*one, *other)):
        return False
    distance = max(abs(one[0] - other[0]), abs(one[1] - other[1]))
    size = max(abs(part) for part in (*one, *other))
    return bool(distance <= size * sympy.Float(10) ** -digits)


def linear(left: str, right: str) -> tuple[sympy.Symbol, Value, bool] | None:
    """Where two sides meet that are linear in one unknown: (unknown, value, whether left minus right grows with it). Raises Unreadable."""
    sides = [value(text)[0] for text in (left, right)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return None
    if any(side in (sympy.oo, -sympy.oo) for side in sides):
        other = sides[0] if sides[1] in (sympy.oo, -sympy.oo) else sides[1]
        infinite = sides[1] if other is sides[0] else sides[0]
        return (other, infinite, other is sides[0]) if other.is_Symbol else None
    difference = sides[0] - sides[1]
    symbols = difference.free_symbols
    if len(symbols) != 1:
        return None
    (unknown,) = symbols
    slope = difference.diff(unknown)
    if slope.free_symbols or slope.is_real is not True or slope == 0:
        return None
    return unknown, -difference.subs(unknown, 0) / slope, bool(slope > 0)
