"""A server that takes events as The Eye does, and answers as a test wants it to."""

import gzip
import json
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.servers import wait_until

WAIT_SECONDS = 30.0


class Request(NamedTuple):
    """A request as it came."""

    at: float
    """Monotonic."""
    path: str
    headers: dict[str, str]
    body: bytes
    """Decompressed."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was sent."""
        events: list[dict[str, Any]] = json.loads(self.body)
        return events

    @property
    def ids(self) -> list[str]:
        """The events' ids."""
        return [event["event_id"] for event in self.events]


class Call:
    """A request that waits for its answer."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: "ScriptedServer", request: Request) -> None:
        self.request = request
        self._handler = handler
        self._server = server

    def store(self, events: list[dict[str, Any]] | None = None) -> None:
        """Keep events, as the real server does before it answers."""
        with self._server.lock:
            self._server.stored.update(
                event["event_id"] for event in (self.request.events if events is None else events)
            )

    def respond(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer."""
        self._handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def problem(self, status: int, code: str, errors: list[dict[str, str]] | None = None, **headers: str) -> None:
        """Answer with problem details."""
        body = {"status": status, "title": "", "code": code, "errors": errors or []}
        self.respond(status, json.dumps(body).encode(), Content_Type="application/problem+json", **headers)

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def hang_up(self) -> None:
        """End the connection."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)


Answer = Callable[[Call], object]


def accept(call: Call) -> None:
    """Answer as the server does when all is well."""
    call.store()
    call.respond(202, json.dumps({"accepted": len(call.request.events), "refused": []}).encode())


def problem(status: int, code: str, **headers: str) -> Answer:
    """Make an answer that says what is wrong."""
    return lambda call: call.problem(status, code, None, **headers)


def refuse_those(bad: Callable[[dict[str, Any]], bool]) -> Answer:
    """Make an answer that refuses some events of a batch, as the server does."""

    def answer(call: Call) -> None:
        events = call.request.events
        refused = [index for index, event in enumerate(events) if bad(event)]
        fault = {"path": "$.session_id", "code": "invalid_uuid", "message": "session_id is a UUID"}
        if len(refused) == len(events):
            call.problem(400, "malformed", [{**fault, "path": f"$[{index}].session_id"} for index in refused])
            return
        call.store([event for event in events if not bad(event)])
        body = {
            "accepted": len(events) - len(refused),
            "refused": [{"index": index, "errors": [fault]} for index in refused],
        }
        call.respond(202, json.dumps(body).encode())

    return answer


class ScriptedServer:
    """Answers with what ``script`` holds, and then always with ``otherwise``; over TLS if it has a context for that."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.lock = threading.Lock()
        self.script: deque[Answer] = deque()
        self.otherwise: Answer = accept
        self.requests: list[Request] = []
        self.stored: Counter[str] = Counter()
        """How often each event was accepted, by its id."""
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http{'s' if self._context else ''}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._http = _Http(("127.0.0.1", self._port), _handler(self))
        self._port = self._http.server_address[1]
        if self._context is not None:
            self._http.socket = self._context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and break every connection."""
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()

    def answer(self, call: Call) -> None:
        """Answer a request by the script."""
        with self.lock:
            self.requests.append(call.request)
            answer = self.script.popleft() if self.script else self.otherwise
        answer(call)

    def wait_for_requests(self, count: int) -> list[Request]:
        """Wait until so many requests have come, and give them all."""
        wait_until(lambda: len(self.requests) >= count, WAIT_SECONDS, lambda: f"{len(self.requests)} requests came")
        return list(self.requests)

    def wait_for_events(self, count: int) -> None:
        """Wait until so many different events are stored."""
        wait_until(lambda: len(self.stored) >= count, WAIT_SECONDS, lambda: f"{len(self.stored)} events are stored")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in tuple(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
            request = Request(time.monotonic(), self.path, dict(self.headers.items()), body)
            server.answer(Call(self, server, request))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """Keep quiet."""

    return Handler


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a server during the block."""
    server = ScriptedServer(context)
    server.start()
    try:
        yield server
    finally:
        server.stop()
