"""python nobody.py FOLDER ARGUMENTS: runs python with these arguments as the user nobody. As root only.

Interpreter, packages and checkout may lie where nobody cannot read them; here they are mounted again below the empty FOLDER.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NOBODY = 65534
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18
CHECKOUT = Path(__file__).resolve().parents[3]
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), b"mode=755" if kind else None):
        raise OSError(ctypes.get_errno(), f"mount {source}")


def main(folder: str, *arguments: str) -> None:
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("nobody", folder, "tmpfs", 0)
    sources = [str(CHECKOUT), sys.base_prefix, *(path for path in sys.path if path and Path(path).is_dir())]
    places = []
    for source in dict.fromkeys(sources):
        places.append(f"{folder}/{len(places)}")
        os.mkdir(places[-1])
        mount(source, places[-1], "", MS_BIND | MS_REC)
    checkout, base, *rest = places
    os.chdir(checkout)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    environment = {"PYTHONPATH": os.pathsep.join([f"{checkout}/src", *rest]), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    python = f"{base}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    os.execve(python, [python, *arguments], environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
