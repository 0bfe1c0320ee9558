"""The trace that a request or a CloudEvent says it is part of, by W3C Trace Context (https://www.w3.org/TR/trace-context).

Read without OpenTelemetry, which is loaded only where The Eye makes traces of its own: the application's can be found
from the event all the same, whether it is sampled or not.
"""

import re
from uuid import UUID

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def read_trace_id(traceparent: str) -> UUID | None:
    """Give the trace id of a ``traceparent``; None for one that is malformed, which the standard says to ignore."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[3]):  # later versions may say more
        return None
    return UUID(found[2])
