"""The process of one check: reads the request, gives up every right, runs the candidate's code and writes replies.

What it writes is up to the candidate from then on; those who read it (server.py, then the caller) trust none of it.
A reply is a JSON list [outcome, value, stdout, error, kind] in the form of codec.py, after its length in four bytes; `kind` is
the name of the built-in exception that the error is. A test asks for a call with ["call", name, args, kwargs].
"""

from __future__ import annotations

import builtins
import gc
import io
import os
import resource
import signal
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import codec, kernel, syscalls

CONTINUE = ("returned", "raised", "unreadable")
FILTERS = {}
if syscalls.supported():
    FILTERS = {changes: kernel.Filter(syscalls.candidate_filter(changes), syscalls.PID) for changes in (True, False)}


# ------------------------------------------------------------------------------------------------------------------- rights


def confine(head: dict, rules: int | None, layers: frozenset[str], uid: int | None) -> None:
    """Give up every right that a candidate is not to have."""
    # Threads are counted by user, and per namespace: without either of its own, a candidate shares the count with all that the user runs.
    shared = 0 if "namespaces" in layers or uid is not None else 4096
    for what, bound in (
        (resource.RLIMIT_CPU, int(head["total"]) + 2),
        (resource.RLIMIT_AS, head["memory"]),
        (resource.RLIMIT_FSIZE, head["file"]),
        (resource.RLIMIT_NPROC, head["threads"] + shared),
    ):
        resource.setrlimit(what, _within(what, bound))
    if uid is not None:
        os.setresuid(uid, uid, uid)
    if not layers:
        return
    if "namespaces" not in layers:  # with them it ends with the worker anyway
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if uid is None:  # whoever becomes another user has none left
        kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # a crash is not to start the machine's program for crashes; a limit does not hold it back
    if rules is not None:
        kernel.landlock(rules)
        os.close(rules)
    if "seccomp" in layers:
        FILTERS["namespaces" in layers].install()


def prepare(uid: int | None) -> None:
    """In the worker, once: what all candidates inherit."""
    for what, bound in (
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),  # counted by user too
    ):
        resource.setrlimit(what, _within(what, bound))
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    kernel.no_new_privileges()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)
    _rehearse()


def _rehearse() -> None:
    """Make some calls, for the interpreter's sake: what it prepares on the way is then there in each forked process, and memory that
    is not written to again is not copied."""
    standard = sys.stdin, sys.stdout
    null = os.open("/dev/null", os.O_RDWR)
    request = {"source": "def add(a, b):\n    return a + b\n", "entry_point": "add", "inputs": [(1, [2]), (3, 4), ("5", "6")]}
    for _ in range(3):
        _calls(codec.decode(codec.encode(request)), Channel(null, -1, 1 << 20))
    os.close(null)
    sys.stdin, sys.stdout = standard
    del sys.modules["solution"]


def _within(what: int, bound: int) -> tuple[int, int]:
    hard = resource.getrlimit(what)[1]
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    return bound, bound


# ------------------------------------------------------------------------------------------------------------------ running


class Channel:
    """Replies out, further calls in."""

    def __init__(self, output: int, incoming: int, limit: int) -> None:
        self.output, self.incoming, self.limit = output, incoming, limit
        self.write, self.read, self.pack = os.write, os.read, struct.pack

    def send(self, message: list) -> None:
        """Raises codec.Unreadable."""
        raw = codec.encode(message)
        if len(raw) > self.limit:
            raw = codec.encode(["output", None, "", f"more than {self.limit} bytes", ""])
        data = self.pack(">I", len(raw)) + raw
        while data:
            data = data[self.write(self.output, data) :]

    def receive(self) -> Any:
        head = self._exactly(4)
        return codec.decode(self._exactly(struct.unpack(">I", head)[0]))

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.read(self.incoming, min(count, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class Capture(io.RawIOBase):
    """What the candidate prints during a call, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size, self.parts = limit, 0, []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        if self.size > self.limit:
            raise OutputLimit(f"more than {self.limit} bytes printed")
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> str:
        text = b"".join(self.parts).decode("utf-8", "backslashreplace")
        self.parts.clear()
        self.size = 0
        return text


class OutputLimit(BaseException):
    """Too much was printed."""


# Made before the fork, for speed.
CAPTURE, EMPTY = Capture(0), io.TextIOWrapper(io.BytesIO())
OUT = io.TextIOWrapper(io.BufferedWriter(CAPTURE), encoding="utf-8", errors="backslashreplace")


def run(head: dict, request: dict, channel: Channel) -> NoReturn:
    """Do what the request asks and exit."""
    sys.dont_write_bytecode = True
    gc.enable()
    codec.READERS["n"] = (list, _array)
    try:
        {"calls": _calls, "serve": _serve, "judge": _judge, "script": _script}[head["mode"]](request, channel)
    finally:
        os._exit(0)


def _execute(text: str, name: str, module: types.ModuleType) -> None:
    """Run a program in a module, without the `from __future__` imports of this file, with which undefined annotations would pass."""
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)


def _calls(request: dict, channel: Channel) -> None:
    """Define the source, call its entry point for each input."""
    capture, out = _capture(channel.limit)
    module = _module("solution")
    body = _guarded(lambda: _execute(request["source"], "<solution>", module), capture, out)
    if body[0] != "returned":
        channel.send(body)
        return
    for arguments in request["inputs"]:
        reply = _answer(module, request["entry_point"], arguments, {}, capture, out, channel)
        if reply not in CONTINUE:
            return


def _serve(request: dict, channel: Channel) -> None:
    """Define the source, then make the calls that come in."""
    capture, out = _capture(channel.limit)
    module = _module("solution")
    channel.send(_guarded(lambda: _execute(request["source"], "<solution>", module), capture, out))
    while True:
        _, name, arguments, keywords = channel.receive()
        _answer(module, name, arguments, keywords, capture, out, channel)


def _answer(
    module: types.ModuleType, name: str, arguments: tuple, keywords: dict, capture: Capture, out: io.TextIOBase, channel: Channel
) -> str:
    """Make one call and send what came of it; returns the outcome."""

    def call() -> Any:
        if name not in module.__dict__:
            raise NameError(f"name {name!r} is not defined")
        return module.__dict__[name](*arguments, **keywords)

    reply = _guarded(call, capture, out)
    try:
        channel.send(reply)
    except MemoryError:
        reply = ["memory", None, "", "MemoryError", ""]
        channel.send(reply)
    except Exception as error:  # codec.Unreadable; or what the value's own classes raise
        reply = ["unreadable", None, reply[2], f"returned what is not data: {describe(error)}"[: codec.MAX_ERROR], ""]
        channel.send(reply)
    return reply[0]


def _guarded(action: Callable[[], Any], capture: Capture, out: io.TextIOBase) -> list:
    """A reply that says what came of an action."""
    try:
        value = action()
        out.flush()
        return ["returned", value, capture.take(), "", ""]
    except OutputLimit as error:
        return ["output", None, "", str(error), ""]
    except MemoryError as error:
        return ["memory", None, "", describe(error), ""]
    except BaseException as error:  # SystemExit and KeyboardInterrupt among them: the call did not return
        text, kind = describe(error), _built_in(error)
    try:
        out.flush()
    except BaseException:  # closed, or too much
        return ["output", None, "", "the output cannot be written", ""]
    return ["raised", None, capture.take(), text, kind]


def _script(request: dict, channel: Channel) -> None:
    """Run the source as a program; what it prints goes where descriptor 1 leads, and its exit status says how it ended."""
    import atexit

    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.argv = ["solution.py"]
    module = _module("__main__")
    status = 0
    try:
        _execute(request["source"], "<solution>", module)
    except SystemExit as error:
        status = 0 if error.code in (None, 0) else 1
        if status:
            channel.send(["raised", None, "", describe(error), "SystemExit"])
    except BaseException as error:
        status = 1
        outcome = "memory" if isinstance(error, MemoryError) else "raised"
        channel.send([outcome, None, "", describe(error), _built_in(error)])
    try:
        if threading := sys.modules.get("threading"):
            threading._shutdown()  # a program ends when its threads have ended
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _judge(request: dict, channel: Channel) -> None:
    """Run tests whose functions under test are elsewhere."""
    import linecache

    capture, out = _capture(channel.limit)
    module = _module("tests")
    for name in request["names"]:
        module.__dict__[name] = _stub(name, channel)
    linecache.cache["<tests>"] = (len(request["tests"]), None, request["tests"].splitlines(True), "<tests>")
    reply = _guarded(lambda: _execute(request["tests"], "<tests>", module), capture, out)
    channel.send(reply)


def _stub(name: str, channel: Channel) -> Callable:
    import threading

    lock = threading.Lock()

    def stub(*arguments: Any, **keywords: Any) -> Any:
        with lock:
            try:
                channel.send(["call", name, arguments, keywords])
            except codec.Unreadable as error:
                raise TypeError(f"{name} is called with what is not data: {error}") from None
            outcome, value, _, text, kind = channel.receive()
        if outcome == "returned":
            return value
        if outcome == "raised":
            raise _revive(text, kind)
        raise RuntimeError(f"{name}: {text or outcome}")

    stub.__name__ = stub.__qualname__ = name
    return stub


def _array(content: list) -> Any:
    """A test's array is numpy's on both sides; in the caller it stays data (codec.Array)."""
    import numpy

    dtype, values = content
    return numpy.array(values, dtype)


def _revive(text: str, kind: str) -> BaseException:
    """The candidate's exception as one of the built-in types; not as one that ends loops, which the tests would take for their own end."""
    made = getattr(builtins, kind, RuntimeError)
    try:
        fails = issubclass(made, Exception) and not issubclass(made, (StopIteration, StopAsyncIteration))
        return made(text.partition(": ")[2]) if fails else RuntimeError(text)
    except TypeError:  # some want other arguments
        return RuntimeError(text)


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def _capture(limit: int) -> tuple[Capture, io.TextIOBase]:
    CAPTURE.limit = limit
    sys.stdin, sys.stdout = EMPTY, OUT
    return CAPTURE, OUT


def _built_in(error: BaseException) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind), "Exception")


def describe(error: BaseException) -> str:
    """The error in one line; of a failed assertion without a message, the test."""
    try:
        text = str(error)
        if isinstance(error, AssertionError):
            text = " ".join(part for part in (_failed_line(error), text) if part)
        line = " ".join(f"{type(error).__name__}: {text}".split()) if text else type(error).__name__
        return line.encode("utf-8", "backslashreplace").decode()[: codec.MAX_ERROR]
    except BaseException:  # the candidate's own classes can do anything
        return "an error that has no text"


def _failed_line(error: BaseException) -> str:
    """Source of the assertion in the tests that failed, empty where it is not in the tests."""
    import ast
    import linecache

    trace, found = error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            found = trace.tb_lineno
        trace = trace.tb_next
    source = "".join(linecache.getlines("<tests>")) if found else ""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and node.lineno <= found <= (node.end_lineno or found):
            return ast.unparse(node.test)
    return ""
