"""Tests that are Python: assert statements, HumanEval's check(candidate), functions in pytest's form (KodCode).

What the sandbox cannot run is refused with its name: tests that are not run would pay every program, and tests that cannot pass none.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

from .problems import Asserts, Ungradable
from .refusals import installed, modules, refusal
from .remote import stand_ins

TARGET = "solution"  # the module from which tests import what they test
CHANGING = {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "popitem", "setdefault", "add", "discard"}
ALWAYS = {*dir(builtins), "__name__", "__file__"}


class Unnamed(Exception):
    """Nothing says which function or class is tested."""


def asserts(tests: str | Sequence[str], entry_point: str, solution: str = "", declared: Mapping[str, str] | None = None) -> Asserts:
    """The tests of a task, ready to be run.

    tests: a module, or statements of which those without `assert` go before each of the others. entry_point: `f`, `Solution().f`, a class,
    or empty. declared: names that the task's text asks for, each `def` or `class`. Raises Ungradable, with a message that goes on from the
    name of the tests, where they assert nothing or need what is not there; Unnamed where nothing says what they test; SyntaxError where
    they are no Python.
    """
    texts, trees, imported = [], [], []
    for text in [tests] if isinstance(tests, str) else tests:
        given = _parsed(text)
        tree, names = _without_imports(given)
        imported += names
        trees.append(tree)
        texts.append(text if tree is given else ast.unparse(tree))
    whole = ast.Module([node for tree in trees for node in tree.body], [])
    own, root = _bound(whole), entry_point.partition("(")[0]
    used = {node.id for node in ast.walk(whole) if isinstance(node, ast.Name)}
    kinds = _kinds(solution) | dict(declared or {})
    if copied := {node.name for node in whole.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}.intersection(kinds):
        raise Ungradable(f"defines {min(copied)} itself, and does not test the program's")
    names = [name for name in dict.fromkeys([root, *imported, *kinds]) if name in used | {root} - {""} and name not in own]
    if not names:
        raise Ungradable("tests nothing that the solution defines") if kinds else Unnamed
    found = {name: kinds.get(name, "class" if name[:1].isupper() else "def") for name in names}
    unknown = used - own - set(names) - ALWAYS
    shared = {name: statement for name, statement in _imports(solution).items() if name in unknown}
    if why := refusal(whole, found, unknown - shared.keys()):
        raise Ungradable(why)
    if kinds and (missing := [module for module in modules(_parsed(solution)) if not installed(module)]):
        raise Ungradable(f"needs {missing[0]}, which the solution imports and which is not installed")
    classes = [name for name, kind in found.items() if kind == "class"]
    uses_pytest = "pytest" in modules(whole)
    setup = "\n".join([_pytest() if uses_pytest else "", *dict.fromkeys(shared.values()), stand_ins(found)])
    if not any(map(_may_fail, ast.walk(whole))):
        raise Ungradable("asserts nothing")
    functions = [node.name for node in whole.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]
    source = "\n".join(texts)
    if functions and not _called(whole, functions):
        run = "pytest.run({})" if uses_pytest else "{}()"
        before, statements = source, [run.format(name) for name in functions]
    elif "check" in own and not _called(whole, ["check"]):
        before, statements = source, [f"check({entry_point})"]
    else:
        statements = [text for text in texts if "assert" in text] or texts
        before = "\n".join(text for text in texts if text not in statements)
    return Asserts("\n".join(filter(None, (setup, before))), tuple(statements), tuple(names), tuple(classes))


def _may_fail(node: ast.AST) -> bool:
    """Whether a part of the tests can find a program wrong: a statement, or a function such as `pytest.raises` and `assert_allclose`."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return isinstance(node, (ast.Assert, ast.Raise)) or name.startswith(("assert", "raises", "fail"))


def kinds_in(declarations: str) -> dict[str, str]:
    """The functions and classes that declarations such as `def f(a):` name, with their kinds."""
    found = {}
    for line in declarations.split("\n"):
        kind, _, rest = line.removeprefix("async ").partition(" ")
        name = rest.partition("(")[0].partition(":")[0].strip()
        if kind in ("def", "class") and name.isidentifier():
            found[name] = kind
    return found


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from error


def _without_imports(tree: ast.Module) -> tuple[ast.Module, list[str]]:
    """The tests without their imports of the program and without what runs them as a script, and the names that they imported."""
    kept, names = [], []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == TARGET and all(alias.asname is None for alias in node.names):
            names += [alias.name for alias in node.names if alias.name != "*"]
        elif not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)):
            kept.append(node)
    return (tree if len(kept) == len(tree.body) else ast.Module(kept, [])), names


def _bound(tree: ast.Module) -> set[str]:
    """Every name that the tests bind anywhere."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            names.add(node.name)
    return names


def _kinds(solution: str) -> dict[str, str]:
    """What the task's own solution defines: name -> def, class, or a kind that cannot be tested. Empty where it is not Python."""
    try:
        body = _parsed(solution).body
    except SyntaxError:
        return {}
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.AsyncFunctionDef):
            found[node.name] = "async"
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = "generator" if _yields(node) else "in place" if _changes_arguments(node) else "def"
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            raised = any(base.endswith(("Error", "Exception")) or found.get(base) == "exception" for base in bases)
            found[node.name] = "exception" if raised else "class"
        elif isinstance(node, ast.Assign):
            kind = "def" if isinstance(node.value, ast.Lambda) else "value"
            found |= {target.id: kind for target in node.targets if isinstance(target, ast.Name)}
    return found


def _changes_arguments(function: ast.FunctionDef) -> bool:
    arguments = {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        changed = node.func if isinstance(node, ast.Call) else node
        changes = isinstance(changed, ast.Attribute) and changed.attr in CHANGING and node is not changed
        stores = isinstance(changed, ast.Subscript) and not isinstance(changed.ctx, ast.Load)
        if (changes or stores) and isinstance(changed.value, ast.Name) and changed.value.id in arguments:  # type: ignore[attr-defined]
            return True
    return False


def _imports(solution: str) -> dict[str, str]:
    """The names that the task's own solution imports, each with its statement: tests that once stood in one file with it may use them."""
    try:
        body = _parsed(solution).body
    except SyntaxError:
        return {}
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {name: ast.unparse(node) for node in imports for name in _bound(ast.Module([node], []))}


def _yields(function: ast.FunctionDef) -> bool:
    inner = {below for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node is not function for below in ast.walk(node)}
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) and node not in inner for node in ast.walk(function))


def _called(tree: ast.Module, names: Collection[str]) -> bool:
    """Whether the module itself calls one of these functions, outside of all functions."""
    calls = (
        call
        for node in tree.body
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
    )
    return any(isinstance(call.func, ast.Name) and call.func.id in names for call in calls)


@cache
def _pytest() -> str:
    """The code that puts pytest_stub.py in the place of pytest."""
    source = Path(__file__).with_name("pytest_stub.py").read_text(encoding="utf-8")
    return (
        f"import sys, types\npytest = sys.modules['pytest'] = types.ModuleType('pytest')\n"
        f"exec(compile({source!r}, '<pytest>', 'exec'), pytest.__dict__)\n"
    )
