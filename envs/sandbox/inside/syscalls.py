"""The system calls a candidate may make, as seccomp filters: all others fail with EPERM.

The filters are classic BPF, assembled here. One with the list of all that is allowed is installed in the worker, once. A short
one is added in each check, because installing takes the kernel time: it takes away what only the worker needs.
"""

from __future__ import annotations

import platform
import struct

# name, number on x86_64, number on aarch64
PLAIN = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70, close 3 57,
close_range 436 436, open 2 -, openat 257 56, openat2 437 437, creat 85 -, lseek 8 62, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79,
statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61,
getcwd 79 17, chdir 80 49, fchdir 81 50, statfs 137 43, fstatfs 138 44, umask 95 166, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
pipe2 293 59, sendfile 40 71, copy_file_range 326 285, getxattr 191 8,
lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, mmap 9 222, munmap 11 215, mprotect 10 226,
mremap 25 216, mincore 27 232, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135,
rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, restart_syscall 219 128,
pause 34 -, futex 202 98, futex_waitv 449 449, set_robust_list 273 99, get_robust_list 274 100, set_tid_address 218 96, rseq 334 293,
exit 60 93, exit_group 231 94, gettid 186 178, getpid 39 172, getppid 110 173, getpgid 121 155, getpgrp 111 -, getsid 124 156,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125,
sched_get_priority_min 147 126, getcpu 309 168, getpriority 140 141, wait4 61 260, waitid 247 95, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, times 100 153, getrusage 98 165,
getrlimit 97 163, sysinfo 99 179, uname 63 160, getrandom 318 278, alarm 37 -, setitimer 38 103, getitimer 36 102, timer_create 222 107,
timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111, timerfd_create 283 85,
timerfd_settime 286 86, timerfd_gettime 287 87, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19,
signalfd 282 -, signalfd4 289 74,
capget 125 90, recvfrom 45 207, getsockname 51 204, getpeername 52 205, getsockopt 55 209, shutdown 48 210
"""
CHANGES = """
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -,
linkat 265 37, symlink 88 -, symlinkat 266 36, truncate 76 45, ftruncate 77 46, fallocate 285 47, chmod 90 -, fchmod 91 52,
fchmodat 268 53, fchmodat2 452 452, utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -
"""
# Answered with success, and not made: on scratch files, which lie in memory, they do nothing; on others they would occupy the disk.
ANSWERED = """
fsync 74 82, fdatasync 75 83, msync 26 227
"""
# With some arguments only.
CONDITIONAL = """
clone3 435 435, socketpair 53 199, sendto 44 206, ioctl 16 29, fcntl 72 25, madvise 28 233
"""
# The worker may make these with arguments that a candidate may not give.
NARROWED = """
kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, clone 56 220, prctl 157 167, prlimit64 302 261
"""
# What the worker itself needs, and a candidate does not get.
WORKER = """
fork 57 -, vfork 58 -, mount 165 40, umount2 166 39, setresuid 117 147, capset 126 91, setrlimit 160 164, setsid 112 157,
memfd_create 319 279, pidfd_open 434 434, seccomp 317 277,
landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446
"""

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

ALLOW, KILL, EPERM, ENOSYS, DONE = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x00050000
LOAD, AND, JUMP, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCH = 0, 4  # offsets in struct seccomp_data; argument n lies at 16 + 8 n, its low half first

AF_UNIX, SOCK_STREAM = 1, 1
CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020000  # all namespaces
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Others send signals, lock or reserve.
FCNTLS = (0, 1, 2, 3, 4, 5, 1030, 1032)
# F_SETLK, F_SETLKW: nobody else is in the scratch directory to be locked out, and nothing outside is a candidate's to lock.
LOCKS = (6, 7)
# MADV_NORMAL to MADV_DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP; not those that write pages out.
ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17)
PRCTLS = (15, 16)  # PR_SET_NAME, PR_GET_NAME

Code = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, constant
PID = 0x5EC0_0123  # stands for the process's number in a filter that is made once


def supported() -> bool:
    return platform.machine() in ARCHITECTURES


def worker_filter() -> bytes:
    """What the worker may do, and so at most its candidates: installed once."""
    column, architecture = ARCHITECTURES[platform.machine()]
    blocks = _conditions(CONDITIONAL, column)
    for answer, tables in ((ALLOW, (PLAIN, CHANGES, NARROWED, WORKER)), (DONE, (ANSWERED,))):
        blocks |= {number: _give(answer) for table in tables for number in _numbers(table, column).values()}
    search = _search(_separate(blocks, EPERM))
    return _assemble([(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, architecture), *_give(KILL), (LOAD, 0, 0, NUMBER), *search])


def candidate_filter(changes: bool) -> bytes:
    """What is left of that for a candidate; PID in it is to be replaced by its number. `changes`: may it change files it can reach."""
    column, _ = ARCHITECTURES[platform.machine()]
    blocks = _conditions(NARROWED, column)
    for table in (WORKER,) if changes else (WORKER, CHANGES):
        blocks |= dict.fromkeys(_numbers(table, column).values(), _give(EPERM))
    return _assemble([(LOAD, 0, 0, NUMBER), *_search(_separate(blocks, ALLOW))])


def _conditions(table: str, column: int) -> dict[int, Code]:
    to_itself, decide = _by_value(0, {ALLOW: (PID,)}), [*_give(ALLOW), *_give(EPERM)]
    blocks = {
        "kill": to_itself,
        "tgkill": to_itself,
        "rt_sigqueueinfo": to_itself,
        "rt_tgsigqueueinfo": to_itself,
        "clone": [(LOAD, 0, 0, 16), (ANY_BIT, 0, 2, CLONE_THREAD), (ANY_BIT, 1, 0, CLONE_NEW), *decide],  # threads
        "clone3": _give(ENOSYS),  # its flags lie in memory, where no filter sees them; the C library then takes clone
        # A connected pair of streams, as asyncio makes one for itself; no datagrams, which could be sent elsewhere.
        "socketpair": [(LOAD, 0, 0, 16), (EQUAL, 0, 4, AF_UNIX), (LOAD, 0, 0, 24), (AND, 0, 0, 0xF), (EQUAL, 0, 1, SOCK_STREAM), *decide],
        "sendto": [(LOAD, 0, 0, 48), (EQUAL, 0, 3, 0), (LOAD, 0, 0, 52), (EQUAL, 0, 1, 0), *decide],  # to no address
        "ioctl": _by_value(1, {ALLOW: IOCTLS}),
        "fcntl": _by_value(1, {ALLOW: FCNTLS, DONE: LOCKS}),
        "madvise": _by_value(2, {ALLOW: ADVICE}),
        "prctl": _by_value(0, {ALLOW: PRCTLS}),
        "prlimit64": _by_value(0, {ALLOW: (0, PID)}),
    }
    return {number: blocks[name] for name, number in _numbers(table, column).items()}


def _give(answer: int) -> Code:
    return [(RETURN, 0, 0, answer)]


def _by_value(argument: int, answers: dict[int, tuple[int, ...]]) -> Code:
    """The answer for each value of an argument, EPERM for others; of its low half: the kernel takes these as 32-bit integers."""
    tests = [step for answer, values in answers.items() for value in values for step in ((EQUAL, 0, 1, value), *_give(answer))]
    return [(LOAD, 0, 0, 16 + 8 * argument), *tests, *_give(EPERM)]


def _separate(blocks: dict[int, Code], otherwise: int) -> list[tuple[int, Code]]:
    """Blocks for all numbers: each goes for its number and those above it, up to the next one's."""
    entries: list[tuple[int, Code]] = [(0, _give(otherwise))]
    for number in sorted({*blocks, *(number + 1 for number in blocks)}):
        block = blocks.get(number, _give(otherwise))
        if block != entries[-1][1] or number in blocks:
            entries.append((number, block))
    return [entry for at, entry in enumerate(entries) if not at or entry[1] != entries[at - 1][1]]


def _search(blocks: list[tuple[int, Code]]) -> Code:
    """Binary search for the number in the accumulator: the block of the last entry that is not above it."""
    if len(blocks) == 1:
        return blocks[0][1]
    middle = len(blocks) // 2
    low, high = _search(blocks[:middle]), _search(blocks[middle:])
    return [(AT_LEAST, 0, 1, blocks[middle][0]), (JUMP, 0, 0, len(low)), *low, *high]


def _assemble(code: Code) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _numbers(table: str, column: int) -> dict[str, int]:
    entries = (entry.split() for entry in table.split(","))
    return {name: int(numbers[column]) for name, *numbers in entries if numbers[column] != "-"}
