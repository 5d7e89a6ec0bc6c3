"""The viewer under load: real connections on this machine. Each is answered, and clients that do nothing delay nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from onelayer.pages.viewer import server as viewer
from onelayer.pages.viewer.server import Server

Connect = Callable[[bytes], socket.socket]
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SECONDS = 25.0  # the bound of each test's waiting


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Connects to a server of an empty directory and sends something. All ends with the test."""
    with ExitStack() as stack, Server("127.0.0.1", 0, tmp_path) as server:

        def made(sent: bytes) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=SECONDS))
            connection.sendall(sent)
            return connection

        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def answer(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def hung_up(connection: socket.socket) -> bool:
    try:
        return answer(connection) == b""
    except ConnectionError:
        return True


def test_two_hundred_at_once_beside_fifty_slow_clients(connect: Connect) -> None:
    for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"GET / HTTP/1.1\r\n"):
        for _ in range(10):
            connect(sent)
    started = threading.Barrier(200)

    def ask(_: int) -> bool:
        started.wait()
        found = answer(connect(ASK))
        return found.startswith(b"HTTP/1.1 200") and b"</html>" in found

    with ThreadPoolExecutor(200) as threads:
        assert all(threads.map(ask, range(200)))


def test_who_sends_byte_by_byte_is_not_waited_for(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "PATIENCE", 1.0)
    slow = connect(b"GET / HTTP/1.1\r\nX: ")
    end = time.monotonic() + SECONDS
    with pytest.raises(ConnectionError):
        while time.monotonic() < end:
            slow.sendall(b"x")
            time.sleep(0.05)
    assert answer(connect(ASK)).startswith(b"HTTP/1.1 200")


def test_more_idle_clients_than_are_waited_for(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have waited longest are closed; who asks is answered."""
    monkeypatch.setattr(viewer, "MAX_WAITING", 20)
    idle = [connect(b"GET") for _ in range(60)]
    assert answer(connect(ASK)).startswith(b"HTTP/1.1 200")
    assert all(hung_up(connection) for connection in idle[:30])
