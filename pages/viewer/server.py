"""`onelayer view`: the pages over HTTP, for browsers on this machine unless told otherwise.

Nothing is written and nothing is fetched from elsewhere. Files are never served by their path: a page takes names that were found in the
directory, and the one script is the package's own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import re
import socket
import socketserver
import sys
import time
import traceback
from base64 import b64encode
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from ...common.errors import UserError
from ..page import TEMPLATES
from .episode_page import NotFound
from .site import Site
from .views import PAGES, TABS

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
ALONE = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "sandbox allow-scripts"
)
"""Of a page that stands alone: its origin is no other page's, so that nothing in it could ask for them."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


PATIENCE = 60.0  # seconds in which a client sends a whole request, and takes a whole answer
MAX_WAITING = 512  # connections that wait for their clients at a time: beyond it, the one that has waited longest is closed


class Server(ThreadingHTTPServer):
    """Serves the pages of one directory of runs. A thread for each connection: one that waits for its client delays no other."""

    daemon_threads = True
    request_queue_size = 1024  # connections not taken yet; with the library's 5, those made at the same moment are lost

    def __init__(self, host: str, port: int, root: Path):
        """port: 0 takes one that is free. Raises UserError where the directory cannot be read, or the port not be had."""
        if not root.is_dir():
            raise UserError(f"{root}: {'a file, not a directory' if root.exists() else 'no such directory'}; name a directory of runs")
        self.site = Site(root, TABS)
        self.script = (TEMPLATES / "view.js").read_bytes()
        self.named = host
        self._told: set[str] = set()
        self._waiting: dict[socket.socket, float] = {}  # for their clients, since when; in this order
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            super().__init__((str(found[0][4][0]), port), Handler)
        except OSError as error:
            raise UserError(f"{host}:{port}: {_why(error)}") from error

    def server_bind(self) -> None:
        # http.server would ask the network for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.named, self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.named, self.named)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def allows(self, host: str) -> bool:
        """Whether a request may name this host: an address, localhost, or the name that the server was given.

        Another name is how a page elsewhere reaches a server here, its own name made to stand for this machine (DNS rebinding). Ports
        are not looked at: a tunnel has another.
        """
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d+)?", host.strip())
        if not found:
            return False
        name = found[1].strip("[]").rstrip(".").lower()
        if name in ("localhost", self.named.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def wait(self, connection: socket.socket) -> None:
        """It waits for its client from now on."""
        self.go_on(connection)
        self._waiting[connection] = time.monotonic()
        for oldest in list(self._waiting)[:-MAX_WAITING]:
            self._hang_up(oldest)

    def go_on(self, connection: socket.socket) -> None:
        """It does not wait any more."""
        self._waiting.pop(connection, None)

    def service_actions(self) -> None:
        """Called by `serve_forever`, twice a second: closes what has waited for too long."""
        for connection, since in list(self._waiting.items()):
            if time.monotonic() - since > PATIENCE:
                self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        """Its thread finds that the client has gone."""
        self.go_on(connection)
        with contextlib.suppress(OSError):  # it has
            connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            self.report_defect()

    def report_defect(self) -> None:
        """Print the exception under way; once, since a page asks again every two seconds."""
        told = traceback.format_exc()
        if told not in self._told:
            self._told.add(told)
            print(told, end="", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for its header to be acknowledged
    server_version, sys_version = "onelayer", ""

    def handle_one_request(self) -> None:
        self.server.wait(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.go_on(self.connection)

    def do_GET(self) -> None:
        self.server.go_on(self.connection)
        if not self.server.allows(self.headers.get("Host", "")):
            return self._answer(HTTPStatus.FORBIDDEN, b"this server is not known by that name\n", "text/plain")
        address = urlsplit(self.path)
        if address.path == "/view.js":
            return self._answer(HTTPStatus.OK, self.server.script, "text/javascript")
        try:
            query = dict(parse_qsl(address.query, errors="replace", max_num_fields=100))
        except ValueError:
            return self._answer(HTTPStatus.BAD_REQUEST, b"too much is asked at once\n", "text/plain")
        site = self.server.site
        status, alone = HTTPStatus.OK, False
        try:
            page = PAGES.get(address.path.removeprefix("/"))
            if page is None:
                raise NotFound("There is no such page.")
            text, alone = page.show(site, query), page.stands_alone
        except NotFound as found:
            status, text = HTTPStatus.NOT_FOUND, site.render("view_message.html.j2", heading="Not there", message=str(found))
        except Exception:
            self.server.report_defect()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            message = "This page has failed; the terminal of the server says how."
            text = site.render("view_message.html.j2", heading="Failed", message=message)
        self._answer(status, text.encode("utf-8", "backslashreplace"), "text/html", alone)

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, alone: bool = False) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        same = status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if same else status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.OK:
            self.send_header("ETag", tag)
        if not same:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if kind == "text/html":
            style = body[body.index(b"<style>") + len(b"<style>") : body.index(b"</style>")]
            own = POLICY.format(style=b64encode(hashlib.sha256(style).digest()).decode())
            self.send_header("Content-Security-Policy", ALONE if alone else own)
        self.send_header("Content-Length", "0" if same else str(len(body)))
        self.server.wait(self.connection)
        self.end_headers()
        if not same and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The terminal stays quiet."""


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; name another with --port (0: any that is free)"
    if error.errno == errno.EACCES:
        return "this port needs more rights; name another with --port"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "not an address of this machine; leave --host out, or name one"
    return f"cannot be served ({(error.strerror or str(error)).lower()})"
