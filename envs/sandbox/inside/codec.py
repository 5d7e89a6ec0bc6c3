"""Python values as JSON that keeps their types; written by a candidate's process, read by one that does not trust it.

None, bool, int, float, str and list stand for themselves. All else is an object with one key that names its type:

    tuple {"t": [...]}   set {"s": [...]}   frozenset {"f": [...]}   dict {"d": [key, value, ...]}   range {"r": [start, stop, step]}
    bytes {"b": latin-1}   bytearray {"a": latin-1}   complex {"c": [real, imaginary]}   Decimal {"D": str}   Fraction {"F": [n, d]}
    date, time, datetime {"T": [kind, iso format]}   timedelta {"T": ["timedelta", [days, seconds, microseconds]]}
    array {"n": [dtype, nested list]}   large int {"i": hexadecimal}   str with lone surrogates {"u": utf-16, hexadecimal}

An instance of a subclass is written as its base, read by the base's own methods: the candidate's are not asked.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

MAX_ERROR = 500  # characters of an error's text
MAX_DEPTH = 200  # of nested containers
MAX_BITS = 20_000  # of the terms of a fraction: reducing it takes quadratic time
MAX_COLLISIONS = 20  # elements of one set that share a hash: looking them up takes quadratic time
TIMES = ("datetime", "date", "time")  # a datetime is a date too, so it comes first
PLAIN = frozenset({int, float, str, bool, type(None)})  # JSON has them
ITSELF = ("t", "s", "f", "d")


class Unreadable(ValueError):
    """The value is none that data can stand for."""


class Garbage(ValueError):
    """What was read is nothing that `encode` writes."""


class Array:
    """A numpy array as it was returned: name of its element type, and its values as nested lists."""

    def __init__(self, dtype: str, values: Any) -> None:
        self.dtype, self.values = dtype, values

    def __eq__(self, other: object) -> bool:
        return type(other) is Array and (self.dtype, self.values) == (other.dtype, other.values)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"array({self.values!r}, dtype={self.dtype})"


def encode(value: Any) -> bytes:
    """Raises Unreadable. Infinite, cyclic and very deep values are unreadable too; shared ones are written out."""
    try:
        return _dump(_tag(value, 0, False))
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:  # an integer that is too long for decimal digits, or lone surrogates: rare, and slow to look for
        if isinstance(error, Unreadable):
            raise
        return _dump(_tag(value, 0, True))


def decode(raw: bytes | bytearray | memoryview) -> Any:
    """Raises Garbage, whatever the bytes."""
    try:
        text = str(raw, "utf-8")
        if _deep(text):
            raise Garbage("nested too deeply")
        value, end = _scan(text)
        if end != len(text):
            raise Garbage("more than one value")
        return value
    except Garbage:
        raise
    except (ValueError, RecursionError, TypeError, ArithmeticError, LookupError) as error:
        raise Garbage(str(error)) from None


# ----------------------------------------------------------------------------------------------------------------- writing


def _dump(tagged: Any) -> bytes:
    return "".join(_write(tagged, 0)).encode()


def _no_json(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} in tagged data")


# What json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")) makes anew for each value.
_write: Callable[[Any, int], tuple[str, ...]] = c_make_encoder(None, _no_json, encode_basestring, None, ":", ",", False, False, True)


def _tag(value: Any, depth: int, careful: bool) -> Any:
    """`careful`: look for integers and strings that JSON cannot hold."""
    kind = type(value)
    if kind in PLAIN:
        return _tag_plain(value) if careful else value
    if depth > MAX_DEPTH:
        raise Unreadable("nested too deeply")
    if kind is list:
        return _tag_all(value, depth, careful)
    if kind is dict:
        return {"d": _tag_all([part for pair in value.items() for part in pair], depth, careful)}
    if kind is tuple:
        return {"t": _tag_all(value, depth, careful)}
    for base, tag in _BASES:
        if issubclass(kind, base):
            return tag(value, depth, careful)
    return _tag_library(value, depth, careful)


def _tag_all(values: list | tuple, depth: int, careful: bool) -> list:
    if not careful and PLAIN.issuperset(map(type, values)):
        return values if type(values) is list else list(values)
    return [_tag(value, depth + 1, careful) for value in values]


def _tag_plain(value: Any) -> Any:
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        return {"i": f"{value:x}"}
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"u": value.encode("utf-32-be", "surrogatepass").hex()}
    return value


def _tag_complex(value: complex, depth: int, careful: bool) -> Any:
    return {"c": [complex.real.__get__(value), complex.imag.__get__(value)]}


_BASES: tuple[tuple[type, Callable[[Any, int, bool], Any]], ...] = (  # a base comes after those derived from it
    (int, lambda value, depth, careful: _tag_plain(int.__int__(value))),
    (float, lambda value, depth, careful: float.__float__(value)),
    (str, lambda value, depth, careful: _tag(str.__str__(value), depth, careful)),
    (list, lambda value, depth, careful: _tag_all(list(list.__iter__(value)), depth, careful)),
    (tuple, lambda value, depth, careful: {"t": _tag_all(list(tuple.__iter__(value)), depth, careful)}),
    (dict, lambda value, depth, careful: {"d": _tag_all([part for pair in dict.items(value) for part in pair], depth, careful)}),
    (set, lambda value, depth, careful: {"s": _tag_all(list(set.__iter__(value)), depth, careful)}),
    (frozenset, lambda value, depth, careful: {"f": _tag_all(list(frozenset.__iter__(value)), depth, careful)}),
    (bytes, lambda value, depth, careful: {"b": bytes.decode(value, "latin-1")}),
    (bytearray, lambda value, depth, careful: {"a": bytearray.decode(value, "latin-1")}),
    (range, lambda value, depth, careful: {"r": _tag_all([value.start, value.stop, value.step], depth, True)}),
    (complex, _tag_complex),
)


def _tag_library(value: Any, depth: int, careful: bool) -> Any:
    """Values of the types that some modules define. No module is imported for the question's sake: its values would have done that."""
    decimal, fractions, datetime, numpy = (sys.modules.get(name) for name in ("decimal", "fractions", "datetime", "numpy"))
    kind = type(value)
    if decimal and issubclass(kind, decimal.Decimal) and not decimal.Decimal.is_snan(value):
        return {"D": decimal.Decimal.__str__(value)}
    if fractions and issubclass(kind, fractions.Fraction):
        terms = [int(term) for term in fractions.Fraction.as_integer_ratio(value)]
        if any(term.bit_length() > MAX_BITS for term in terms):
            raise Unreadable("fraction of very large numbers")
        return {"F": [_tag_plain(term) for term in terms]}
    if datetime and issubclass(kind, datetime.timedelta):
        plain = datetime.timedelta.__add__(value, datetime.timedelta())
        return {"T": ["timedelta", [plain.days, plain.seconds, plain.microseconds]]}
    if datetime:
        for name in TIMES:
            if issubclass(kind, base := getattr(datetime, name)):
                return {"T": [name, base.isoformat(value)]}
    if numpy and issubclass(kind, numpy.ndarray):
        return {"n": [str(value.dtype), _tag(numpy.ndarray.tolist(value), depth, careful)]}
    if numpy and issubclass(kind, numpy.generic):
        scalar = value.item()
        if not issubclass(type(scalar), numpy.generic):
            return _tag(scalar, depth, careful)
    raise Unreadable(f"{kind.__name__} object")


# ----------------------------------------------------------------------------------------------------------------- reading


def _untag(tagged: dict[str, Any]) -> Any:
    if len(tagged) != 1:
        raise Garbage("not one type")
    ((kind, content),) = tagged.items()
    if kind not in READERS:
        raise Garbage("unknown type")
    wanted, reader = READERS[kind]
    if type(content) is not wanted:
        raise Garbage("a type's contents are of another type")
    return reader(content)


def _hashable(values: list) -> list:
    """Refuses what would take forever to look up."""
    if len(values) > MAX_COLLISIONS and Counter(map(hash, values)).most_common(1)[0][1] > MAX_COLLISIONS:
        raise Garbage("values made to collide")
    return values


def _read_dict(parts: list) -> dict:
    if len(parts) % 2:
        raise Garbage("a key without a value")
    return dict(zip(_hashable(parts[::2]), parts[1::2], strict=True))


def _numbers(values: list, kind: type, count: int) -> list:
    if len(values) != count or any(type(value) is not kind for value in values):
        raise Garbage("other numbers than expected")
    return values


def _read_fraction(terms: list) -> Any:
    from fractions import Fraction

    if any(term.bit_length() > MAX_BITS for term in _numbers(terms, int, 2)):
        raise Garbage("a fraction of very large numbers")
    return Fraction(*terms)


def _read_decimal(text: str) -> Any:
    from decimal import Decimal

    value = Decimal(text)
    if value.is_snan():  # it cannot even be compared
        raise Garbage("signalling NaN")
    return value


def _read_time(content: list) -> Any:
    import datetime

    kind, text = content
    if kind == "timedelta":
        days, seconds, microseconds = _numbers(text, int, 3)
        return datetime.timedelta(days, seconds, microseconds)
    if kind not in TIMES:
        raise Garbage("unknown type")
    return getattr(datetime, kind).fromisoformat(text)


def _read_array(content: list) -> Array:
    dtype, values = content
    if type(dtype) is not str:
        raise Garbage("an array of no type")
    return Array(dtype, values)


READERS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "t": (list, tuple),
    "s": (list, lambda values: set(_hashable(values))),
    "f": (list, lambda values: frozenset(_hashable(values))),
    "d": (list, _read_dict),
    "r": (list, lambda values: range(*_numbers(values, int, 3))),
    "b": (str, lambda text: text.encode("latin-1")),
    "a": (str, lambda text: bytearray(text.encode("latin-1"))),
    "c": (list, lambda parts: complex(*_numbers(parts, float, 2))),
    "D": (str, _read_decimal),
    "F": (list, _read_fraction),
    "T": (list, _read_time),
    "n": (list, _read_array),
    "i": (str, lambda text: int(text, 16)),
    "u": (str, lambda text: bytes.fromhex(text).decode("utf-32-be", "surrogatepass")),
}


_scan = json.JSONDecoder(object_hook=_untag).raw_decode  # made once: it is most of the work for a short value


MAX_NESTING = 2 * MAX_DEPTH + 8  # of brackets: a type's object and its list for each container, and those of the message


def _deep(text: str) -> bool:
    """Whether lists and objects are nested more deeply than `encode` writes them: what reads or compares them may recurse."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    brackets = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"', "", text, flags=re.DOTALL).encode().translate(None, OTHERS)
    for _ in range(MAX_NESTING):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == before:
            break
    return bool(brackets)  # also where they do not match


OTHERS = bytes(set(range(256)) - set(b"[]{}"))
