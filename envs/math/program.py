"""The program that compares formulas, in a child that the kernel kills when a check exceeds its limits. workers.py starts it.

Before each check the child arms timers whose signals have their default action, death; the program then answers "timeout" in
its stead and forks the next child, which is warm. Requests and replies are JSON, each after its length in four bytes. The
program ends when its standard input is closed.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Callable

from . import shapes

CPU_SECONDS = 1.0  # of one check
WALL_SECONDS = 10.0  # of one check: for what waits instead of computing, and for a machine under load
MEMORY_BYTES = 2 << 30  # address space of a child

WARM_UP = (  # what the program compares before its first child: their imports and caches are then there for all children
    (r"\frac{1}{2}+x", "x+0.5"),
    (r"(1,\sqrt{2})", r"(1,2\pi)"),
    (r"[0,\infty)", "0<x<5"),
    (r"(-\infty,3)\cup[4,5)", r"x<3 \text{or} 4\le x<5"),
    (r"\{1,2\}", r"\{\sqrt{4},1\}"),
    ("1,-2", r"x=1 \text{or} x=-3"),
    ("x^{2}+3x+7", r"(x+1)^{5} (x+2)^{4} \cdot \frac{x^{2}-1}{\sqrt{x+1}}"),
    ("y=2x+9", "x-y=1"),
    (r"\mathbb{R}\setminus\{2\}", r"x\ne 2"),
    (r"\begin{matrix} 1 \\ 2 \end{matrix}", r"\begin{matrix} 1 \\ \frac{1}{2} \end{matrix}"),
    (r"\cos(\frac{\pi}{5})+3i", r"\sin(2)+i\log_{2} 3"),
    (r"\cos \frac{20\pi}{180}", r"2\tan{2}x_{1}-|x-1|+x_n"),
    (r"\frac{\sqrt{\pi}}{\cos{\theta}}", r"\lfloor\frac{n}{2}\rfloor+\ln x+\binom{n}{2}"),
    (r"\{1,2\}\cup(3,4)", r"-\frac{1}{2}\le x\le \frac{\sqrt{3}}{2}"),
    (r"a^{2}b(x+y)-(2)(3)", r"2^{-50}(x_1+x_2)\cdot\tan\theta"),
    (r"x(x(x(1)))+abcdefghijklm", r"\sin(\cos(\sin(x)))+||x||-\arcsin(9)"),
    (r"e^{x^{9}}-\frac{1}{1+\frac{1}{1+\frac{1}{x}}}", r"+1-1+1-1+\binom{n}{k}\binom{k}{n}-\lfloor x\lfloor y\rfloor\rfloor"),
    (r"e^{\frac{i\pi}{3}}", r"\sqrt[3]{2}-2^{1/3}+n!+\frac{a}{b}c"),
    (r"x(x(x(x(x(x(1))))))+(((((x+1)))))(((((x+2)))))", r"|x-|x-|x-|x-|x-1|||||+f(g(h(f(g(x)))))+f''(x)"),
    (r"(1,2)", r"\mathbb{R}\setminus\{\frac{\pi}{7},\frac{2\pi}{7}\}"),
    (r"\frac{\pi}{4}", r"0\le x\le 100"),
    (r"2", r"1\pmod{7^{99}}"),
    (r"\exp(\exp(\exp(x)))-e^{e^{2}}", r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+x}}}}+x^{\log_{2}\log_{3}x}"),
    (r"\tan^{9}(x)\cdot\sin^{2}(3x)\cdot\cos^{3}\theta", r"9^{\log_{2}9}+\frac{1}{1+\frac{1}{1+\frac{1}{x}}}"),
    (r"\lfloor e^{10}\rfloor+\arctan\frac{1}{2}+\sin\frac{\pi}{7}", r"\binom{9n}{8n}+x_1x_2x_3+(1+i)^{80}"),
)


def serve() -> None:
    """Answer requests until standard input is closed."""
    import logging

    try:
        from .equality import compare
    except ImportError:
        write(1, {"error": "latex2sympy2_extended, a part of math-verify, is not installed: pip install math-verify"})
        return
    logging.disable(logging.CRITICAL)
    for gold, answer in WARM_UP:
        compare(shapes.read(gold), shapes.read(answer))
    gc.collect()
    gc.freeze()  # a full collection over the libraries takes longer than most checks, and would copy their pages into each child
    busy = mmap.mmap(-1, 1)  # shared with the child: 1 while a reply is owed
    write(1, {"ready": True})
    while True:
        child = os.fork()
        if child == 0:
            try:
                _work(busy, compare)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return
        if busy[0]:
            busy[0] = 0
            write(1, {"verdict": "timeout"})


def _work(busy: mmap.mmap, compare: Callable[..., str]) -> None:
    """The child: check after check, each under limits that end the process."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while (request := read(0)) is not None:
        busy[0] = 1
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        try:
            reply = compare(**request)
        except MemoryError:
            reply = "timeout"
        except Exception:  # sympy raises all kinds on input that is no mathematics, RecursionError among them
            reply = "unparsed"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        busy[0] = 0
        write(1, {"verdict": reply})


# ------------------------------------------------------------------------------------------------------------------ messages


def write(fd: int, message: dict) -> None:
    raw = json.dumps(message).encode()
    data = struct.pack(">I", len(raw)) + raw
    while data:
        data = data[os.write(fd, data) :]


def read(fd: int, seconds: float | None = None) -> dict | None:
    """The next message; None at the end of the stream. TimeoutError when it is not there in time."""
    deadline = None if seconds is None else time.monotonic() + seconds
    head = _exactly(fd, 4, deadline)
    body = _exactly(fd, struct.unpack(">I", head)[0], deadline) if head else None
    return json.loads(body) if body else None


def _exactly(fd: int, count: int, deadline: float | None) -> bytes | None:
    data = b""
    while len(data) < count:
        if deadline is not None:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
        part = os.read(fd, count - len(data))
        if not part:
            return None
        data += part
    return data


if __name__ == "__main__":
    serve()
