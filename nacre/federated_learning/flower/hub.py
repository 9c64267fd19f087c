"""The bundle and its signatures for a SuperLink, which takes signatures from a hub alone.

Flower 1.42 verifies the signatures of a bundle at its SuperNodes, and a SuperLink hands on those
that it was given by Flower's hub; a bundle that comes with a run has none. Where the hub is says
`FLWR_SUPERGRID_API_URL` in the SuperLink's environment, so it can be the server's own process: this
one answers the two questions that a SuperLink asks while a run starts, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nacre.core.errors import BadArgument, NacreError

FETCH = "/v1/hub/fetch-fab"
_LONGEST = 65536  # bytes of a question


def host_and_port(address: str) -> tuple[str, int]:
    """(host, port) of `host:port`. Raises `BadArgument` for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadArgument(f"{address!r} is no HOST:PORT; write it as 127.0.0.1:9093")
    return host, int(port)


@contextmanager
def serving(address: str, answer: bytes, data: bytes) -> Generator[None]:
    """Answers at `address` (`host:port`) for as long as the block runs: `answer` to the question
    for a bundle, and `data` where that is fetched. Raises `NacreError` where nobody can listen
    there."""

    class HubQuestions(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds for a question that never ends

        def do_POST(self) -> None:
            """Where the bundle is, and who signed it."""
            size = self.headers.get("Content-Length", "")
            if self.path != FETCH or not size.isdecimal() or int(size) > _LONGEST:
                self.send_error(404)
                return
            self.rfile.read(int(size))
            self._said(answer, "application/json")

        def do_GET(self) -> None:
            """The bundle."""
            self._said(data, "application/octet-stream")

        def _said(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a SuperLink's questions are no news."""

    try:
        server = ThreadingHTTPServer(host_and_port(address), HubQuestions)
    except OSError as error:
        raise NacreError(
            f"nobody can listen at {address} ({error.strerror or error}), where the SuperLink asks "
            "for the bundle's signatures; choose another `--hub`, and start the SuperLink with it"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
