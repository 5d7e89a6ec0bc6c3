"""Seeds: everything random has one that depends on what it is for and on nothing else."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """63 bits from a hash of the parts."""
    return int.from_bytes(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:8], "big") >> 1
