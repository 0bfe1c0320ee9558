"""The port of a process that only operators reach: metrics, health and what else a service tells of itself."""

import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import disable_created_metrics, make_wsgi_app

from the_eye.settings import Address, SettingsError

Answer = tuple[HTTPStatus, Mapping[str, Any]]
"""Status and JSON body."""

Routes = Mapping[str, Callable[[], Answer]]


class DiagnosticsServer:
    """Serves ``/metrics`` and ``routes`` from a thread of its own, so that it answers while the service is busy."""

    def __init__(self, listen: Address, routes: Routes, *, key: str) -> None:
        """Bind at once.

        Raises SettingsError, which names the setting's ``key``, when the address cannot be had.
        """
        try:
            self._server = make_server(
                listen.host, listen.port, _application(routes), server_class=_Server, handler_class=_QuietHandler
            )
        except OSError as error:
            message = f"cannot listen on {listen} ({key}): {error.strerror}"
            raise SettingsError(message) from error
        self.address = Address(listen.host, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="diagnostics", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and give the address back."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # seconds for one request: a connection that says nothing must not hold its thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no news."""


_StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def _application(routes: Routes) -> Callable[[dict[str, Any], _StartResponse], Iterable[bytes]]:
    disable_created_metrics()  # type: ignore[no-untyped-call] # each is a series more that nothing here asks for
    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body: Iterable[bytes] = metrics(environ, start_response)
            return body
        status, content = routes[path]() if path in routes else (HTTPStatus.NOT_FOUND, {"paths": [*routes, "/metrics"]})
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [msgspec.json.encode(content)]

    return answer
