"""The Hugging Face hub, before it is asked: its library tries for a minute what cannot succeed, and reports each attempt."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path


def settle() -> None:
    """Let what goes wrong be told once, by the caller; and where the hub's host has no address, let only the local cache be asked."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if constants.HF_HUB_OFFLINE or getproxies():  # a proxy resolves names itself
        return
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are imported later, and for worker processes


def snapshot(name: str) -> Path | None:
    """The local directory of a model of the hub that has been loaded; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None
