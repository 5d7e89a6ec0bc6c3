"""A server of `onelayer view` to ask for pages, and what a reader sees of them."""

from __future__ import annotations

import html
import http.client
import re
import threading
from collections.abc import Callable
from pathlib import Path

from onelayer.pages.viewer.server import Server

Ask = Callable[..., tuple[int, str]]


class serving:
    def __init__(self, root: Path):
        self.server = Server("127.0.0.1", 0, root)

    def __enter__(self) -> Ask:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self.ask

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        self.headers = dict(answer.getheaders())
        found = answer.status, answer.read().decode()
        connection.close()
        return found


def texts(page: str) -> str:
    """What a reader sees of a page."""
    body = page[page.index("</style>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def settled(ask: Ask, path: str) -> str:
    """What a reader sees of a page when all its figures are there."""
    wait_for(lambda: "being computed" not in ask(path)[1])
    return texts(ask(path)[1])


def wait_for(seen: Callable[[], object]) -> None:
    for _ in range(2400):
        if seen():
            return
        threading.Event().wait(0.05)
    raise AssertionError("never seen")
