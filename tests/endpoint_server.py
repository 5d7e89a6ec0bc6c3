"""A small server of OpenAI's chat completions around the tiny base, that can misbehave as real ones do."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from onelayer.agents.config import ModelConfig
from onelayer.agents.engine import FinishReason, Request, Sampling, TransformersEngine
from onelayer.agents.policy import load_base


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # a busy machine must not turn connections away: troubles are counted


class StandIn:
    """troubles: that many requests, the first ones, go wrong, each in another way. dies_after: requests answered before it hangs up on all.
    hangs: that many requests, the first ones, are answered `seconds` late; refuses: then one is refused, for a reason with this word.

    `bodies` has every request that came. Texts are those of the model, decoded one request at a time.
    """

    def __init__(
        self,
        troubles: int = 0,
        key: str | None = None,
        dies_after: int | None = None,
        port: int = 0,
        hangs: int = 0,
        refuses: str = "",
        seconds: float = 0.0,
    ):
        self.troubles, self.key, self.dies_after = troubles, key, dies_after
        self.hangs, self.refuses, self.seconds = hangs, refuses, seconds
        self.base = load_base(ModelConfig())
        self.engine = TransformersEngine(self.base.model, self.base.end_ids)
        self.bodies: list[dict[str, Any]] = []
        self.lock, stand_in = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stand_in.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        body = json.loads(call.rfile.read(int(call.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
        if self.key is not None and call.headers.get("Authorization") != f"Bearer {self.key}":
            return send(call, 401, f"no such key: {call.headers.get('Authorization')}".encode())
        if self.dies_after is not None and number >= self.dies_after:
            return call.connection.close()
        if number < self.hangs:
            return time.sleep(self.seconds)
        if self.refuses and number == self.hangs:
            return send(call, 400, f"what a {self.refuses}".encode())
        if number < self.troubles:
            return self.misbehave(call, number)
        send(call, 200, json.dumps(self.complete(body)).encode())

    def misbehave(self, call: BaseHTTPRequestHandler, number: int) -> None:
        match number % 6:
            case 0:
                send(call, 429, b"slow down", {"Retry-After": "0.05"})
            case 1:
                send(call, 500, b"\x1b[31moops")
            case 2:
                send(call, 200, b"<html>a proxy's page</html>")
            case 3:
                send(call, 200, b'{"choices": []}')
            case 4:
                send(call, 200, b'{"choices": [{"mess', {"Content-Length": "9000"})
            case _:
                call.connection.close()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        tokenizer = self.base.tokenizer
        ids: Any = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        with self.lock:
            (reply,) = self.engine.generate([Request(ids, body["seed"], Sampling(body["max_tokens"], body["temperature"]))])
        text = tokenizer.decode(reply.token_ids, skip_special_tokens=True)
        finish = "length" if reply.finish is FinishReason.LENGTH else "stop"
        return {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"completion_tokens": len(reply.token_ids)},
        }


def send(call: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
    call.send_response(status)
    for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
        call.send_header(name, value)
    call.end_headers()
    call.wfile.write(data)
