"""Values keep their types on the way, whatever their classes say; and no bytes can trouble the one who reads."""

from __future__ import annotations

import contextlib
import math
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer.envs.sandbox.inside import codec

text = st.text(st.characters(exclude_categories=()), max_size=20)
numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-(10**60), 10**60), st.floats(), st.complex_numbers())
exact = st.one_of(numbers, text, st.binary())
plain = exact.filter(lambda value: value == value)  # sets of NaN are hard to compare
hashable = st.recursive(plain, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=4)), max_leaves=4)
values = st.recursive(
    st.one_of(
        exact,
        hashable,
        st.binary().map(bytearray),
        st.builds(range, st.integers(), st.integers(), st.integers(1)),
        st.fractions(),
        st.decimals(allow_nan=True).filter(lambda value: not value.is_snan()),
        st.dates(),
        st.datetimes(timezones=st.sampled_from([None, UTC])),
        st.times(),
        st.timedeltas(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.sets(hashable, max_size=4), st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, where NaN equals itself and zeros have signs."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        return one == other and sorted(map(str, map(type, one))) == sorted(map(str, map(type, other)))
    return one == other or repr(one) == repr(other)


@given(values)
@settings(max_examples=200)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [10**5000, [-(10**5000), "\ud800"], "\ud83d\ude00", {"\udc00": [1]}, [[[(1, {2: b"\xff"})]]]],
    ids=lambda value: type(value).__name__,
)
def test_what_json_can_not_hold(value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value


class Liar(str):
    def __eq__(self, other: object) -> bool:
        return True

    def __str__(self) -> str:
        raise RuntimeError

    __hash__ = str.__hash__
    __iter__ = __len__ = encode = __repr__ = __str__  # type: ignore[assignment]


class List(list):
    def __iter__(self):
        return iter([7])


class Dict(dict):
    def items(self):
        return [(1, 1)]

    def __iter__(self):
        return iter([1])


class Unit(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Liar("x"), "x"),
        (List([1, 2]), [1, 2]),
        (Dict({3: 4}), {3: 4}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict([(2, 1), (1, 2)]), {2: 1, 1: 2}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (namedtuple("Pair", "a b")(1, 2.0), (1, 2.0)),
        (Unit.ONE, 1),
        ({Unit.ONE: Liar("x")}, {1: "x"}),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), codec.Array("int64", [[0, 1], [2, 3]])),
        ([np.array([1.5])], [codec.Array("float64", [1.5])]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_are_reduced_by_the_methods_of_their_base(value: Any, plain: Any) -> None:
    assert same(codec.decode(codec.encode(value)), plain)


def endless() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [object(), print, iter([]), (n for n in ()), [lambda: 1], {1: {1}.__iter__()}, endless(), type, Ellipsis, Decimal("sNaN")]
)
def test_what_is_no_data_is_unreadable(value: Any) -> None:
    with pytest.raises(codec.Unreadable):
        codec.encode(value)


GARBAGE = [
    b"",
    b"\xff",
    b"nul",
    b"1" * 5000,
    b"[" * 10**6,
    b'{"t":' * 10**5,
    b'{"t":[1],"s":[]}',
    b'{"x":1}',
    b'{"t":1}',
    b'{"i":"zz"}',
    b'{"u":"00"}',
    b'{"s":[[1]]}',
    b'{"d":[1]}',
    b'{"d":[[],1]}',
    b'{"b":"\xe2\x82\xac"}',
    b'{"c":[1,2]}',
    b'{"c":["1",2.0]}',
    b'{"D":"x"}',
    b'{"D":"sNaN"}',
    b'{"F":[1,0]}',
    b'{"F":[1]}',
    b'{"F":[{"i":"1' + b"0" * 10**5 + b'"},3]}',
    b'{"r":[1,2,0]}',
    b'{"T":["eval","1"]}',
    b'{"T":["date","x"]}',
    b'{"T":[[],1]}',
    b'{"T":["timedelta",[99999999999999,1,1]]}',
    b'{"n":[1]}',
    b'{"s":[' + b",".join(b'{"i":"%x"}' % (n * (2**61 - 1)) for n in range(1000)) + b"]}",  # all with the same hash
]


@pytest.mark.parametrize("raw", GARBAGE, ids=lambda raw: repr(raw[:20]))
@pytest.mark.parametrize("limit", [None, 100_000])
def test_garbage_is_refused(raw: bytes, limit: int | None) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit or before)  # someone else's doing
    try:
        with pytest.raises(codec.Garbage):
            codec.decode(raw)
    finally:
        sys.setrecursionlimit(before)


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_do_anything_but_decode_or_fail(raw: bytes) -> None:
    with contextlib.suppress(codec.Garbage):
        codec.decode(raw)


def test_these_types_are_meant() -> None:
    for value in (date(2024, 2, 29), time(1, 2), datetime(2024, 1, 1, tzinfo=UTC), timedelta(-1, 5), Fraction(1, 3), Decimal("1.50")):
        back = codec.decode(codec.encode({"x": value}))["x"]
        assert (type(back), repr(back)) == (type(value), repr(value)) or back == value
