"""The worker program: sets up its isolation once, then forks one process per check and watches it from outside.

    caller -> worker   N limits + request   start a check       C {call}   a further call for it      A   end it
    worker -> caller   H {hello}   R cpu + reply   O printed bytes   E how the check ended

Each message has a byte for its kind and its length in four. The request is read by the forked process, and what the check sends
passes through memory that a fork does not inherit: so no candidate finds another's code or answers in its own memory.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import marshal
import mmap
import os
import signal
import site
import struct
import sys
from collections.abc import Callable

from . import candidate, codec, kernel, syscalls
from .meter import Meter
from .watch import ENDED, HEAD, Pipes, Watch, exactly, receive, send, write

# Imported before the first fork. Not what registers work to be done in forked processes, or loads large libraries: that makes
# each fork slower, and those who want it can import it.
WARM = "math collections itertools re typing heapq bisect functools string copy operator"


def main(wanted: frozenset[str], packages: list[str]) -> None:
    """Serve checks on standard input and output until it is closed.

    `wanted`: layers of isolation to use where they work. `packages`: directories of installed packages that candidates may import.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, a candidate goes first
    sys.path += packages
    site.setquit()
    for name in WARM.split():
        __import__(name)
    worker = Worker(wanted, packages)
    candidate.prepare(worker.uid)
    if "namespaces" in worker.layers:  # ends with the process that waits outside; becoming another group has undone this
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    worker.test()
    gc.collect()
    gc.freeze()
    gc.disable()
    send(b"H", json.dumps({"layers": sorted(worker.layers), "reasons": worker.reasons}).encode())
    while (head := worker.next()) is not None:
        worker.check(head)


class Worker:
    """This program's isolation and what it keeps from check to check."""

    def __init__(self, wanted: frozenset[str], packages: list[str]) -> None:
        self.proc: int | None = None
        with contextlib.suppress(OSError):
            self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        self.reasons: dict[str, str] = {}  # why a layer is missing
        self.paths, self.hidden = kernel.readable(packages), kernel.hidden(packages)
        self.scratch = "/scratch" if any(path.startswith("/tmp/") for path in self.paths) else "/tmp"
        self.scratch_bytes = 0
        self.buffer = mmap.mmap(-1, 1)
        own, uid = os.geteuid() == 0, 2_000_000_000 + os.getpid()  # a user that owns nothing, and another for each worker
        if "namespaces" in wanted and (why := _attempt(self._try_namespaces)):
            self.reasons["namespaces"] = why
            wanted -= {"namespaces"}
        if "landlock" in wanted and not kernel.landlock_version():
            self.reasons["landlock"] = "the kernel does not offer it"
            wanted -= {"landlock"}
        if "seccomp" in wanted and not syscalls.supported():
            self.reasons["seccomp"] = "only on x86_64 and aarch64"
            wanted -= {"seccomp"}
        self.layers = wanted
        if "namespaces" in self.layers:
            own &= self._enter()
        self.uid = uid if own and self.layers and not _attempt(lambda: _imports_as(uid)) else None
        self.rules: int | None = None
        self.grants: list[tuple[int, int]] = []  # of the minimal root, open
        self._renew(64 << 20)

    def _try_namespaces(self) -> None:
        kernel.unshare()
        kernel.minimal_root(self.paths, self.hidden, self.scratch)

    def _enter(self) -> bool:
        """Enter namespaces and go on in a child, the first process of its own. Returns whether the machine's root is still root here."""
        user = kernel.unshare()
        if child := os.fork():  # stays outside, and ends with it
            for descriptor in (0, 1):
                os.close(descriptor)
            os.waitpid(child, 0)
            os._exit(0)
        kernel.minimal_root(self.paths, self.hidden, self.scratch)
        kernel.drop_bounding_set()
        return not user

    def _renew(self, size: int) -> None:
        """A new scratch directory, of this size at most: even an empty one could tell of the check before, by its mode or times."""
        if "namespaces" not in self.layers:
            return
        if self.scratch_bytes:
            kernel.unmount(self.scratch)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("onelayer", self.scratch, "tmpfs", flags, f"size={size},nr_inodes=4096,mode=777")
        self.scratch_bytes = size
        self._make_rules()

    def _make_rules(self) -> None:
        if self.rules is not None:
            os.close(self.rules)
        self.rules = None
        if "landlock" not in self.layers:
            return
        if "namespaces" not in self.layers:
            self.rules = kernel.landlock_rules(kernel.landlock_grants(self.paths, self.hidden), None)
            return
        if not self.grants:  # each rule takes time in each check; in the minimal root nothing is left of what is hidden
            self.grants = [(os.open(path, os.O_PATH), rights) for path, rights in kernel.landlock_grants(self.paths, [])]
        self.rules = kernel.landlock_rules(self.grants, self.scratch)

    def test(self) -> None:
        """Try in a process confined like a candidate what each layer forbids; a layer that lets it happen does not count."""
        self._make_rules()
        if "namespaces" in self.layers and (why := _attempt(_stands_alone)):
            self._drop("namespaces", why)
        if "landlock" in self.layers and (why := self._allows(self._reads_outside, "landlock")):
            self._drop("landlock", why)
        if "seccomp" in self.layers:
            kernel.Filter(syscalls.worker_filter()).install()
            if why := self._allows(_makes_socket, "seccomp") or self._allows(_forks, "seccomp"):
                self._drop("seccomp", why)

    def _allows(self, forbidden: Callable[[], object], layer: str) -> str:
        """Why a layer is not one: what it allows, or that it cannot be entered."""

        def probe() -> None:
            head = {"total": 10, "memory": 1 << 30, "file": 1 << 20, "threads": 64}
            candidate.confine(head, self.rules if layer == "landlock" else None, self.layers & {layer, "namespaces"}, self.uid)
            if kernel.capabilities():
                raise RuntimeError("it leaves capabilities")
            with contextlib.suppress(PermissionError):
                forbidden()
                raise RuntimeError("it lets pass what it is to forbid")

        return _attempt(probe)

    def _drop(self, layer: str, why: str) -> None:
        self.reasons[layer] = why
        self.layers -= {layer}
        self._make_rules()

    def _reads_outside(self) -> None:
        open("/canary" if "namespaces" in self.layers else "/proc/self/status").close()

    # ---------------------------------------------------------------------------------------------------------- the checks

    def next(self) -> dict | None:
        """The next request's head; None when the caller has gone."""
        while message := receive():
            kind, content = message
            if kind == b"N":
                return marshal.loads(content)
        return None  # a late call or end of the check before is passed over

    def check(self, head: dict) -> None:
        """Run one check to its end."""
        if head["file"] != self.scratch_bytes:
            self._renew(head["file"])
        write(self._check(head) if self.layers else self._check_in_folder(head))
        self._renew(head["file"])  # while the caller reads; the next check comes after it

    def _check_in_folder(self, head: dict) -> list[bytes | memoryview]:
        """With isolation switched off: files go where they can be removed."""
        import shutil
        import tempfile

        self.scratch = tempfile.mkdtemp(prefix="onelayer-unsafe-")
        try:
            return self._check(head)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _check(self, head: dict) -> list[bytes | memoryview]:
        """What is to be told of the check when all its processes have ended."""
        if len(self.buffer) < head["output"] + 8192:
            self.buffer.close()
            self.buffer = mmap.mmap(-1, head["output"] + 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.buffer.madvise(mmap.MADV_DONTFORK)
        pipes = Pipes(head["mode"])
        pid = os.fork()
        if pid == 0:
            self._become_candidate(head, pipes)
        pipes.keep_ours()
        meter = Meter(pid, self.proc)
        watch = Watch(head, pipes, meter, self.buffer)
        reason = watch.run()
        status, cpu = self._end(pid)
        if not watch.started and watch.pass_replies() is not None:  # what is left of the request would be taken for a message
            os._exit(1)
        if status == -signal.SIGKILL and not reason and cpu >= head["total"]:
            reason = "timeout"  # the kernel's own limit
        if pipes.print_in is not None and reason != "abort" and not watch.drain_output():
            reason = "output"
        meter.close()
        pipes.close()
        why = reason.encode()
        return [*watch.held, HEAD.pack(b"E", ENDED.size + len(why)), ENDED.pack(status, cpu), why]

    def _become_candidate(self, head: dict, pipes: Pipes) -> None:
        """In the forked process: never returns."""
        try:
            request = codec.decode(exactly(0, head["size"]))
            standard_input = null = os.open("/dev/null", os.O_RDWR)  # not one for all checks: they would share its flags and locks
            if head["mode"] == "script":
                standard_input = os.memfd_create("stdin")
                os.write(standard_input, request["stdin"].encode("utf-8", "surrogatepass"))
                os.lseek(standard_input, 0, os.SEEK_SET)
            os.dup2(standard_input, 0)
            os.dup2(pipes.print_out if pipes.print_out is not None else null, 1)
            os.dup2(null, 2)
            kept = [2, *sorted(fd for fd in (pipes.reply_out, pipes.feed_in, self.rules) if fd is not None), 1 << 16]
            for low, high in itertools.pairwise(kept):
                os.closerange(low + 1, high)
            os.chdir("/" if self.layers and "namespaces" not in self.layers else self.scratch)
            if "namespaces" not in self.layers:
                os.setsid()
            channel = candidate.Channel(pipes.reply_out, -1 if pipes.feed_in is None else pipes.feed_in, head["output"])
            candidate.confine(head, self.rules, self.layers, self.uid)
            os.write(pipes.reply_out, struct.pack(">I", 0))  # the request has been read
            candidate.run(head, request, channel)
        finally:
            os._exit(1)

    def _end(self, pid: int) -> tuple[int, float]:
        """End the check's processes; the first one's exit status (negative: a signal) and the CPU seconds of all."""
        if "namespaces" in self.layers and os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)  # everything in this namespace but ourselves; at least the check's process is there
        else:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        result, total = 0, 0.0
        while True:
            try:
                ended, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                return result, total
            total += usage.ru_utime + usage.ru_stime
            if ended == pid:
                result = os.waitstatus_to_exitcode(status)


# --------------------------------------------------------------------------------------------------------- what is forbidden


def _imports_as(uid: int) -> None:
    """Raises OSError where that user cannot be had, or may not read the interpreter's library."""
    os.setresuid(uid, uid, uid)
    os.listdir(os.path.dirname(os.__file__))


def _stands_alone() -> None:
    import socket

    if os.getppid() != 1 or socket.if_nameindex() != [(1, "lo")] or os.path.exists("/proc/self"):
        raise RuntimeError("they hold what is not theirs")


def _makes_socket() -> None:
    import socket

    socket.socket().close()


def _forks() -> None:
    if os.fork() == 0:
        os._exit(0)


def _attempt(action: Callable[[], object]) -> str:
    """Do it in a forked process; returns why it failed, nothing where it did not."""
    source, drain = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            os.write(drain, f"{type(error).__name__}: {error}".encode()[:300])
            os._exit(1)
        os._exit(0)
    os.close(drain)
    with open(source, "rb") as file:
        why = file.read().decode()
    status = os.waitpid(child, 0)[1]
    return why or (f"ended with status {status}" if status else "")
