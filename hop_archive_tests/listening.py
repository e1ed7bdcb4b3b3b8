"""Services that listen on this machine, as those that take alerts do: a webhook, and a mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Takes what is posted, or refuses it.

    Attributes:
        bodies: What was taken, as JSON.
        asked: Paths that were got.
        status: What is answered.
    """

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.asked: list[str] = []
        self.status = 200
        self.port = 0

    def url(self, token: str = "s3cret-t0ken") -> str:
        """In Apprise's form, with what nobody may see."""
        return f"json://user:{token}@127.0.0.1:{self.port}/{token}?-token={token}"

    @property
    def titles(self) -> list[str]:
        return [body["title"] for body in self.bodies]

    @property
    def text(self) -> str:
        return "\n".join(f"{body['title']}\n{body['message']}" for body in self.bodies)


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook, while the block lasts."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status < 400:
                hook.bodies.append(json.loads(body))
            self.answer()

        def do_GET(self) -> None:
            hook.asked.append(self.path)
            self.answer()

        def answer(self) -> None:
            self.send_response(hook.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library has it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """The port of a mail server, and the mails that it took (RFC 5321, as much of it as a sender needs)."""
    mails: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def handle(self) -> None:
            self.say("220 here")
            while line := self.rfile.readline():
                verb = line.strip().upper()[:4]
                if verb == b"DATA":
                    self.say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    mails.append(b"".join(lines).decode())
                    self.say("250 taken")
                elif verb == b"QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1], mails
        finally:
            server.shutdown()
            thread.join()
