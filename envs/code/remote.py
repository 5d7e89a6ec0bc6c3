"""The program's functions and classes, as tests that run apart from it see them.

Only data passes between the two (sandbox). So the tests have a stand-in for every function, which sends its arguments, and for every
class, which tells the program what to make, call and look up; what comes back is data, and is compared where the program has no say.
Arguments that a function changed in place are changed in the tests too if it returned nothing, or if the task's own solution changes them:
elsewhere a function that returns its answer cannot change the question. refusals.py tells of what no data can stand for.
"""

from __future__ import annotations

from collections.abc import Mapping

NAMES = ("_remote_call", "_remote_new", "_remote_method", "_remote_get", "_remote_set")
# Goes after the program. A forged answer is only another value or another error.
IN_PROGRAM = """
_remote_objects = []
def _remote_call(name, args, kwargs, in_place):
    if name not in globals():
        raise NameError(f"name {name!r} is not defined")
    value = globals()[name](*args, **kwargs)
    return value, list(args) if in_place or value is None else []
def _remote_new(name, args, kwargs):
    if name not in globals():
        raise NameError(f"name {name!r} is not defined")
    _remote_objects.append(globals()[name](*args, **kwargs))
    return len(_remote_objects) - 1
def _remote_method(at, name, args, kwargs):
    return getattr(_remote_objects[at], name)(*args, **kwargs)
def _remote_get(at, name):
    value = getattr(_remote_objects[at], name)
    return (True, None) if callable(value) else (False, value)
def _remote_set(at, name, value):
    setattr(_remote_objects[at], name, value)
"""
# Goes before the tests.
IN_TESTS = """
def _same(one, other):
    try:
        return bool(one == other)
    except ValueError:  # arrays
        return False
def _become(one, other):
    if type(one) is not type(other) or _same(one, other):
        return
    if isinstance(one, list):
        for mine, new in zip(one, other):
            _become(mine, new)
        one[:] = [mine if _same(mine, new) else new for mine, new in zip(one, other)] + other[len(one):]
    elif isinstance(one, (dict, set)):
        one.clear()
        one.update(other)
def _function(name, in_place):
    def stand_in(*args, **kwargs):
        value, after = _remote_call(name, args, kwargs, in_place)
        if in_place or value is None:  # whatever the program says
            for one, other in zip(args, after):
                _become(one, other)
        return value
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in
class _Object:
    def __init__(self, *args, **kwargs):
        self.__dict__["_at"] = _remote_new(type(self).__name__, args, kwargs)
    def __getattr__(self, name):
        method, value = _remote_get(self._at, name)
        return (lambda *args, **kwargs: _remote_method(self._at, name, args, kwargs)) if method is True else value
    def __setattr__(self, name, value):
        _remote_set(self._at, name, value)
def _special(name):
    return lambda self, *args: _remote_method(self._at, name, args, {})
for _name in ("__len__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__call__", "__str__", "__repr__"):
    setattr(_Object, _name, _special(_name))
"""


def stand_ins(names: Mapping[str, str]) -> str:
    """The code that goes before tests of these names, each with its kind: def, class, or in place (a function that changes arguments)."""
    made = [
        f"class {name}(_Object): pass\n" if kind == "class" else f"{name} = _function({name!r}, {kind == 'in place'})\n"
        for name, kind in names.items()
    ]
    return IN_TESTS + "".join(made)
