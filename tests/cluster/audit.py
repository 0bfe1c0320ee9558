"""What a service account has asked the API server for, by the API server's own record."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec


class Object(msgspec.Struct, frozen=True, rename="camel"):
    """What a request was about."""

    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    api_group: str = ""


class User(msgspec.Struct, frozen=True):
    """Who asked."""

    username: str


class Status(msgspec.Struct, frozen=True):
    """What was answered."""

    code: int = 0


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """One request, when it was answered; a watch is written down twice, when it begins and when it ends."""

    audit_id: str = msgspec.field(name="auditID")
    stage: str
    verb: str
    user: User
    request_uri: str = msgspec.field(name="requestURI")
    stage_timestamp: datetime
    object_ref: Object | None = None
    response_status: Status = Status()

    @property
    def writes(self) -> bool:
        """Whether it would change something."""
        return self.verb not in {"get", "list", "watch"}

    @property
    def namespace(self) -> str:
        """Where what it was about is."""
        return self.object_ref.namespace if self.object_ref else ""

    @property
    def permission(self) -> tuple[str, str, str]:
        """Name what a Role has to allow: API group, resource with its subresource, and verb."""
        about = self.object_ref or Object()
        resource = f"{about.resource}/{about.subresource}" if about.subresource else about.resource
        return about.api_group, resource, self.verb


class Audit:
    """The requests of one user since this was made or ``forget`` was called.

    Without a log there are none: a test that is about them, and not about something else besides, asks for a control
    plane that has one.
    """

    def __init__(self, log: Path | None, user: str) -> None:
        self._log = log
        self._user = user
        self._from = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._from = self._log.stat().st_size if self._log else 0

    def requests(self) -> list[Request]:
        """Give the requests for objects in their order, watches when they began."""
        seen: dict[str, Request] = {}
        for request in self._read():
            if request.user.username == self._user and request.object_ref and request.object_ref.resource:
                seen.setdefault(request.audit_id, request)
        return list(seen.values())

    def _read(self) -> Iterator[Request]:
        if self._log is None:
            return
        with self._log.open("rb") as log:
            log.seek(self._from)
            for line in log:
                if line.endswith(b"\n"):  # else it is being written
                    yield _decode(line)

    def writes(self) -> list[Request]:
        """Give the requests that would change something."""
        return [request for request in self.requests() if request.writes]

    def permissions(self) -> set[tuple[str, str, str, str]]:
        """Give what Roles have to allow for these requests: the namespace, and what it is there."""
        return {(request.namespace, *request.permission) for request in self.requests()}

    def denied(self) -> list[Request]:
        """Give the requests that no Role allows."""
        return [request for request in self.requests() if request.response_status.code == 403]

    def count(self) -> Counter[str]:
        """Count the requests by resource and verb."""
        return Counter(" ".join(request.permission[1:]) for request in self.requests())


_decode: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
