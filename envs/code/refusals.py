"""What Python tests may not ask for, because the sandbox cannot give it: said by name, once, when the data is loaded."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.util import find_spec

PYTEST = {"raises", "approx", "mark", "fail"}  # what pytest_stub.py has
BUILT_IN = {"len", "str", "repr", "isinstance", "hasattr", "type"}  # functions that take an object and need no more than its stand-in
STREAMS = {"redirect_stdout", "redirect_stderr", "open", "input"}
KINDS = {
    "exception": "an exception of the program's own",
    "value": "a value of the program's own",
    "generator": "a generator",
    "async": "an async function",
}


def refusal(tests: ast.Module, names: Mapping[str, str], unknown: Collection[str]) -> str | None:
    """Why these tests cannot be run, as a sentence that goes on from their name; None where they can.

    names: what they test, each with its kind (asserts.kinds). unknown: names that they use and nothing defines.
    """
    reasons = _reasons(tests, names, unknown)
    return next(reasons, None)


def modules(tree: ast.AST) -> Iterator[str]:
    """The modules that code imports, by the first part of their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").partition(".")[0]


@cache
def installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _reasons(tests: ast.Module, names: Mapping[str, str], unknown: Collection[str]) -> Iterator[str]:
    yield from (f"uses {name}, {KINDS[kind]}" for name, kind in names.items() if kind in KINDS)
    for module in modules(tests):
        if module in ("unittest", "solution", "."):
            yield f"imports {module}"
        elif module != "pytest" and not installed(module):
            yield f"imports {module}, which is not installed"
    star = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tests))
    if unknown and not star:
        yield f"uses {min(unknown)}, which nothing defines"
    yield from _of_pytest(tests)
    yield from _of_the_process(tests)
    yield from _of_objects(tests, [name for name, kind in names.items() if kind == "class"])
    yield from _of_arguments(tests, names)


def _of_pytest(tests: ast.Module) -> Iterator[str]:
    for node in ast.walk(tests):
        if isinstance(node, ast.Attribute) and _named(node.value, {"pytest"}) and node.attr not in PYTEST:
            yield f"uses pytest.{node.attr}"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("pytest.mark") and node.attr != "parametrize":
            yield f"uses pytest.mark.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "pytest" and (other := {alias.name for alias in node.names} - PYTEST):
            yield f"uses pytest.{min(other)}"
    for node in tests.body:
        if isinstance(node, (ast.AsyncFunctionDef, ast.ClassDef)) and node.name.lower().startswith("test"):
            yield f"has tests in {'a class' if isinstance(node, ast.ClassDef) else 'an async function'}, {node.name}"
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            cases = " ".join(ast.unparse(call.args[0]) for call in node.decorator_list if isinstance(call, ast.Call) and call.args)
            needed = node.args.args[: len(node.args.args) - len(node.args.defaults)]
            yield from (f"uses the fixture {argument.arg}" for argument in needed if argument.arg not in cases)


def _of_the_process(tests: ast.Module) -> Iterator[str]:
    """Files and streams, which the program's process does not share."""
    for node in ast.walk(tests):
        if _named(node, STREAMS) or (isinstance(node, ast.Attribute) and node.attr in STREAMS):
            yield f"uses {ast.unparse(node)}"
        if isinstance(node, ast.Attribute) and _named(node.value, {"sys"}) and node.attr in ("stdout", "stdin", "stderr", "argv"):
            yield f"uses sys.{node.attr}"
        if isinstance(node, ast.Attribute) and _named(node.value, {"pd", "pandas", "torch"}):
            yield f"uses {ast.unparse(node)}, which cannot be handed to the program"


def _of_objects(tests: ast.Module, classes: Collection[str]) -> Iterator[str]:
    """Objects of the program's classes, as far as they are more than made, called and looked up."""
    parents = {child: node for node in ast.walk(tests) for child in ast.iter_child_nodes(node)}
    made = [node for node in ast.walk(tests) if isinstance(node, ast.Call) and _named(node.func, classes)]
    kept = _assigned(made, parents)
    for node in ast.walk(tests):
        if _named(node, classes) and not _names_a_class(node, parents[node]):
            yield f"uses {ast.unparse(node)} other than to make an object of it"
        if (node in made or (_named(node, kept) and isinstance(node.ctx, ast.Load))) and not _possible(node, parents):  # type: ignore[attr-defined]
            yield f"hands on an object: {ast.unparse(parents[node])[:80]!r}"


def _of_arguments(tests: ast.Module, names: Collection[str]) -> Iterator[str]:
    """Arguments that are functions, generators or objects of the tests' own classes."""
    parents = {child: node for node in ast.walk(tests) for child in ast.iter_child_nodes(node)}
    own = {node.name for node in ast.walk(tests) if isinstance(node, ast.ClassDef)}
    made = [node for node in ast.walk(tests) if isinstance(node, ast.Call) and _named(node.func, own)]
    functions = {node.name for node in ast.walk(tests) if isinstance(node, ast.FunctionDef)}
    for call in ast.walk(tests):
        if isinstance(call, ast.Call) and _named(call.func, names):
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                handed = isinstance(argument, (ast.Lambda, ast.GeneratorExp)) or argument in made
                if handed or _named(argument, functions | _assigned(made, parents)):
                    yield f"hands a function or an object to the program: {ast.unparse(call)[:80]!r}"


def _assigned(made: list[ast.Call], parents: Mapping[ast.AST, ast.AST]) -> set[str]:
    """The names that the results of these calls are given."""
    found = [at for call in made if isinstance(at := parents[call], ast.Assign)]
    return {target.id for at in found for target in at.targets if isinstance(target, ast.Name)}


def _named(node: ast.AST, names: Collection[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _names_a_class(node: ast.AST, parent: ast.AST) -> bool:
    return isinstance(parent, ast.Call) and (parent.func is node or (_named(parent.func, {"isinstance"}) and parent.args[-1] is node))


def _possible(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether an object is used here for its attributes, methods or items, kept under a name, or dropped."""
    parent = parents[node]
    if isinstance(parent, ast.Attribute):  # s.push(1), s.size, s.name.upper(), but not s.next.value
        outer = parents[parent]
        called = isinstance(outer, ast.Attribute) and isinstance(call := parents[outer], ast.Call) and call.func is outer
        return called or not isinstance(outer, ast.Attribute)
    if isinstance(parent, ast.Call):
        return parent.func is node or _named(parent.func, BUILT_IN)
    if isinstance(parent, ast.Compare):
        (operator, *more) = parent.ops
        if isinstance(operator, (ast.In, ast.NotIn)):
            return not more and parent.left is not node
        return not more and isinstance(operator, (ast.Is, ast.IsNot))
    return isinstance(parent, (ast.Expr, ast.Subscript, ast.Assign))
