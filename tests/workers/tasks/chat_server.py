"""A server on loopback that speaks the chat completions protocol, or fails to, as a test wants it."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


def completion(text: Any, *, reason: str = "stop", tokens: int = 7) -> Answer:
    """What a model answers."""
    value = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": tokens},
    }
    return 200, {}, json.dumps(value).encode()


def refusal(status: int, message: str = "no", **headers: str) -> Answer:
    """An error as such servers word it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message}}).encode()


@dataclass
class ChatServer:
    """Where it listens, and what it was asked so far."""

    port: int
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the protocol begins."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serve_chat(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    """A server that answers the request of each number, counted from 0, so."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(told.bodies)
                told.bodies.append(body)
                told.keys.append(self.headers["Authorization"])
            if self.path != "/v1/chat/completions":
                status, headers, content = refusal(404)
            else:
                status, headers, content = answer(number, body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = ChatServer(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
