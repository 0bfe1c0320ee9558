"""The served OpenAPI description held against the running edge, by requests that schemathesis makes of it.

Every operation gets good and bad requests of many kinds. Whatever is sent: no answer is a 500, none has another status
or form than the description says, nothing that contradicts the description is accepted, and none takes long. What a
payload may hold is shown in test_payloads.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_edge import Edge, running

from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection

EXAMPLES = 80
RUN_SECONDS = 100

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
)
# 413: a batch of more events than maxItems is refused for its size.
CONFIG = """
request-timeout = 10
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413, 415, 422]
"""


@pytest.fixture
def limitless(queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection) -> Iterator[Edge]:
    """The edge, ready, without a limit that would answer in its stead."""
    environ = {"THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": "0"}
    with running(Edge(queue_settings, connection), store_settings, **environ) as ready:
        yield ready


@pytest.mark.timeout(RUN_SECONDS + 40)
def test_the_edge_keeps_to_its_description(limitless: Edge, tmp_path: Path) -> None:
    """By several thousand requests, half of which contradict the description."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    options = {
        "--checks": ",".join(CHECKS),
        "--phases": "examples,coverage,fuzzing",
        "--max-examples": str(EXAMPLES),
        "--header": f"Authorization: Bearer {limitless.created.text}",
    }
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(config),
        "run",
        f"{limitless.url}/api/schema",
    ]

    result = subprocess.run(  # noqa: S603 - our own command
        [*command, *(part for option in options.items() for part in option)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=RUN_SECONDS,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 selected / 5 total" in result.stdout
