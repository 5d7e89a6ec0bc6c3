"""Passes on what a running check sends, and says when it must end."""

from __future__ import annotations

import mmap
import os
import select
import struct
import time

from .meter import Meter

TICK = 0.1  # seconds between two looks at a check's times, on average: no candidate can tell when the next one comes
PAUSE = 0.003  # seconds in which most checks are over
PATIENCE = 60  # a call may take this many times its CPU seconds on the clock, whatever it does
HEAD = struct.Struct(">cI")  # of a message between worker and caller: its kind, its length
CPU = struct.Struct(">d")
ENDED = struct.Struct(">id")  # of a check: exit status, CPU seconds; then the reason for which it was ended
SIZE = struct.Struct(">I")


class Pipes:
    """Of one check: replies out of it, and where the mode wants it, calls into it or what it prints out of it."""

    def __init__(self, mode: str) -> None:
        self.reply_in, self.reply_out = os.pipe()
        self.feed_in = self.feed_out = self.print_in = self.print_out = None
        if mode in ("serve", "judge"):
            self.feed_in, self.feed_out = os.pipe()
            os.set_blocking(self.feed_out, False)
        if mode == "script":
            self.print_in, self.print_out = os.pipe()
            os.set_blocking(self.print_in, False)

    def keep_ours(self) -> None:
        """Close the candidate's ends."""
        _close(self.reply_out, self.feed_in, self.print_out)

    def close(self) -> None:
        _close(self.reply_in, self.feed_out, self.print_in)


def _close(*descriptors: int | None) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


class Watch:
    """One running check. `buffer` is memory that forks do not inherit, larger than any reply that is allowed."""

    def __init__(self, head: dict, pipes: Pipes, meter: Meter, buffer: mmap.mmap) -> None:
        self.head, self.pipes, self.meter, self.buffer = head, pipes, meter, buffer
        self.used = 0  # bytes of an unfinished reply in the buffer
        self.held: list[bytes | memoryview] = []  # replies that the message of the end takes along
        self.replies = self.printed = 0
        self.started = False
        self.waiting: float | None = None  # since when (`time.monotonic`) the check has waited for a call
        self.printing = True  # until the end of the output
        self.pending = b""  # what the check has not read yet of a call that came in
        self.poll = select.poll()
        # A check is mostly over before anyone could do with its first reply. So at first only its end is waited for.
        self.eager = head["mode"] != "calls"
        self.poll.register(pipes.reply_in, select.POLLIN if self.eager else 0)
        if pipes.print_in is not None:
            self.poll.register(pipes.print_in, select.POLLIN)
        self.next_look = _soon()
        self._begin()

    def run(self) -> str:
        """Why the check must end: timeout, output, garbage, abort, done; nothing where it ended by itself."""
        while True:
            events = dict(self.poll.poll(max(0.0, self.next_look - time.monotonic()) * 1000 if self.eager else PAUSE * 1000))
            if not self.eager and not events:
                self.eager = True
                self.poll.modify(self.pipes.reply_in, select.POLLIN)
            if self.pipes.print_in in events and not self.pass_output():
                return "output"
            if self.pipes.reply_in in events and (reason := self.pass_replies()) is not None:
                return reason
            if 0 in events and not self._take_message():
                return "abort"
            if self.pipes.feed_out in events:
                self._feed()
            # After the replies, which may say that a call is over; and whatever else the candidate does.
            if time.monotonic() >= self.next_look and self._too_long():
                return "timeout"

    def _begin(self) -> None:
        """A call begins: its times count from here."""
        self.cpu_before, self.idle_before, self.wall_before = self.meter.read_cpu(), self.meter.idle, self.meter.now()

    def _too_long(self) -> bool:
        self.next_look = _soon()
        if self.waiting is not None:
            self.meter.skip(self.waiting)
            self.waiting = time.monotonic()
        self.meter.look()
        cpu, idle, call, total = self.meter.cpu, self.meter.idle, self.head["cpu"], self.head["total"]
        if cpu > total or idle > total:
            return True
        if self.waiting is not None:
            return False
        wall = self.meter.now() - self.wall_before
        return cpu - self.cpu_before > call or idle - self.idle_before > call or wall > PATIENCE * call

    def pass_replies(self) -> str | None:
        """Read what there is and pass on the replies that are complete. A reason to end the check, or None."""
        with memoryview(self.buffer) as view:
            count = os.readv(self.pipes.reply_in, [view[self.used :]])
            if not count:
                return ""
            self.used += count
            at, parts, reason = 0, [], None
            while self.used - at >= SIZE.size:
                (size,) = SIZE.unpack_from(view, at)
                end = at + SIZE.size + size
                if size > self.head["output"] or (self.started and (not size or not self._expects_reply())):
                    reason = "garbage"
                    break
                if end > self.used:
                    break
                if self.started:
                    self.replies += 1
                    cpu = CPU.pack(self.meter.read_cpu() - self.cpu_before)
                    parts += HEAD.pack(b"R", len(cpu) + size), cpu, view[at + SIZE.size : end]
                    self.waiting = None if self.pipes.feed_out is None else time.monotonic()
                else:
                    self.started = True  # the request has been read, so what comes on standard input now is for us
                    if self.eager:
                        self.poll.register(0, select.POLLIN)
                self._begin()
                at = end
            if self.eager:
                self._tell(parts)
            else:
                self.held += map(bytes, parts)
        if reason:
            return reason
        if at:
            self.buffer.move(0, at, self.used - at)
            self.used -= at
        return "done" if self.replies == self.head["count"] and self.head["mode"] == "calls" else None

    def pass_output(self) -> bool:
        """Pass on what was printed; False when it is too much."""
        with memoryview(self.buffer) as view:
            try:
                count = os.readv(self.pipes.print_in or 0, [view[self.used :]])
            except BlockingIOError:
                return True
            if not count and self.printing:
                self.printing = False
                self.poll.unregister(self.pipes.print_in or 0)
            self.printed += count
            if self.printed > self.head["output"]:
                return False
            if count:
                self._tell([HEAD.pack(b"O", count), view[self.used : self.used + count]])
            return True

    def _expects_reply(self) -> bool:
        return self.waiting is None and self.replies != self.head["count"]

    def _tell(self, parts: list[bytes | memoryview]) -> None:
        """Send to the caller, who may be busy: that is not the candidate's time."""
        since = time.monotonic()
        write(parts)
        self.meter.skip(since)

    def drain_output(self) -> bool:
        """After the end of the check: pass on what is left in the pipe; False when it is too much."""
        before = -1
        while before < self.printed:
            before = self.printed
            if not self.pass_output():
                return False
        return True

    def _take_message(self) -> bool:
        """A message of the caller; False when it wants the check to end."""
        message = receive()
        if message is None or message[0] != b"C":
            return False
        self.pending = SIZE.pack(len(message[1])) + message[1]
        if self.waiting is not None:
            self.meter.skip(self.waiting)
        self.waiting = None
        self._begin()
        self.poll.register(self.pipes.feed_out or 0, select.POLLOUT)
        return True

    def _feed(self) -> None:
        try:
            self.pending = self.pending[os.write(self.pipes.feed_out or 0, self.pending) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it has closed its end: the replies will end too
            self.pending = b""
        if not self.pending:
            self.poll.unregister(self.pipes.feed_out or 0)


def _soon() -> float:
    """When to look next."""
    return time.monotonic() + TICK * (0.5 + os.urandom(1)[0] / 255)


# ---------------------------------------------------------------------------------------- messages from and to the caller


def send(kind: bytes, content: bytes | memoryview) -> None:
    write([HEAD.pack(kind, len(content)), content])


def write(parts: list[bytes | memoryview]) -> None:
    """All of them, at once where the pipe takes it."""
    while parts:
        count = os.writev(1, parts[:1000])
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if parts:
            parts[0] = memoryview(parts[0])[count:]


def receive() -> tuple[bytes, bytes] | None:
    """The next message; None at the end of the stream."""
    try:
        kind, size = HEAD.unpack(exactly(0, HEAD.size))
        return kind, exactly(0, size)
    except EOFError:
        return None


def exactly(descriptor: int, count: int) -> bytes:
    """That many bytes. Raises EOFError."""
    part = os.read(descriptor, min(count, 1 << 20))
    if len(part) == count:  # most are short
        return part
    parts = []
    while part:
        parts.append(part)
        count -= len(part)
        if not count:
            return b"".join(parts)
        part = os.read(descriptor, min(count, 1 << 20))
    raise EOFError
