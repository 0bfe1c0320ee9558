"""Errors as problem details (RFC 9457): one shape for every error body."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from the_eye.event import Fault

PROBLEM_MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an error."""

    status: int
    title: str
    code: str
    """Stable name of the error: senders may branch on it."""
    detail: str = ""
    errors: tuple[Fault, ...] = ()
    """Every fault that was found, each with its JSON path (``$`` is the body) or its query parameter."""
    event_id: str = ""
    """The id that the server gave an event which may or may not be queued: sent again with it, it counts once."""
    type: str = "about:blank"


class ProblemError(Exception):
    """Raised to answer a request with a problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = dict(headers or {})


def problem(
    status: HTTPStatus,
    code: str,
    detail: str = "",
    *,
    errors: tuple[Fault, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemError:
    """Make the error to raise; its title is the status's phrase."""
    return ProblemError(Problem(status.value, status.phrase, code, detail, errors), headers)


def unavailable(code: str, detail: str, *, retry_after: int = 2) -> ProblemError:
    """Say that a retry after ``retry_after`` seconds may succeed."""
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, code, detail, headers={"Retry-After": str(retry_after)})


def malformed(errors: tuple[Fault, ...], detail: str = "The request has faults.") -> ProblemError:
    """Say what is wrong with what was sent."""
    return problem(HTTPStatus.BAD_REQUEST, "malformed", detail, errors=errors)
