"""A server of tokens for tests, with TLS or without: it gives to one client what a broker takes that asks for no signature."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trustme
from pydantic import SecretStr

from hop_archive.model.credentials import Token

CLIENT = {"U": "client-1", "P": "right-secret"}
"""The one client, as variables that a stanza may name."""


def unsigned(lifetime_s: float, name: str = "alice") -> Token:
    """A JSON web token that nobody signed, from now on."""
    now = time.time()
    claims = {"sub": name, "iat": now, "exp": now + lifetime_s}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, claims)
    ]
    return Token(SecretStr(f"{parts[0]}.{parts[1]}."), now + lifetime_s)


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives tokens to ``CLIENT``, and counts."""

    lifetime_s = 3600.0
    given = 0
    refused = 0

    def __init__(self, authority: trustme.CA | None) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.scheme = "https" if authority else "http"
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            # The handshake is made by the thread of the request, where one that fails ends nothing else.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/token"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not believe the certificate hangs up: that is what some tests are about."""


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        expected = base64.b64encode(":".join(CLIENT.values()).encode()).decode()
        known = self.headers["Authorization"] == f"Basic {expected}" and "scope=kafka" in body
        self.server.given += known
        self.server.refused += not known
        answer: dict[str, object] = {"error": "invalid_client"}
        if known:
            token = unsigned(self.server.lifetime_s)
            answer = {"access_token": token.text.get_secret_value(), "token_type": "Bearer"}
        text = json.dumps(answer).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(authority: trustme.CA | None = None) -> Iterator[TokenServer]:
    """A server of tokens, over TLS with a certificate of ``authority`` if there is one."""
    with TokenServer(authority) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
