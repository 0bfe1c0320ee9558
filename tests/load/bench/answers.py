"""What a generator makes of the answers it gets; imports next to nothing, for each run of a generator starts anew."""

import re
from collections.abc import Sequence

import msgspec

ACCEPTED = b"HTTP/1.1 2"
RECEIVE_BYTES = 16_384
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Load(msgspec.Struct, frozen=True):
    """What a generator saw."""

    answers: int
    """Requests that were answered, the failed ones too."""
    seconds: float
    failed: int
    """Requests that were not answered with 2xx."""
    p50_ms: float
    p99_ms: float
    late_p99_ms: float = 0.0
    """How late the generator itself sent what was due, and nobody else's fault; 0 for one that has no schedule."""

    @property
    def per_second(self) -> float:
        """Requests that succeeded, a second."""
        return (self.answers - self.failed) / self.seconds


def is_whole(answer: bytes) -> bool:
    """Say whether an HTTP answer with a Content-Length has come to its end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that ``share`` of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * round(share * 10_000) // 10_000) - 1)]
