"""The examples of the client's page run; those for a web framework, which is not installed here, are only compiled."""

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.client.conftest import TOKEN
from tests.client.scripted import ScriptedServer
from tests.client.tracking import SESSION

from the_eye_client._client import _clients

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
FRAMEWORKS = ("django", "fastapi")


def test_the_page_has_examples() -> None:
    assert len(BLOCKS) >= 7
    assert [name for name in FRAMEWORKS if not any(name in block for block in BLOCKS)] == []


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
async def test_an_example_works(
    block: str, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it tracks arrives."""
    monkeypatch.setenv("THE_EYE_URL", server.url)
    monkeypatch.setenv("THE_EYE_TOKEN", TOKEN)
    source = block.replace("https://events.example.com", server.url).replace("eye_...", TOKEN)
    source = source.replace("/var/lib/shop", str(tmp_path))
    code = compile(source, str(README), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if any(name in block for name in FRAMEWORKS):
        return
    names: dict[str, Any] = {"session_id": SESSION}
    result = eval(code, names)  # noqa: S307 - our own page
    if asyncio.iscoroutine(result):
        await result
    for client in tuple(_clients):
        await asyncio.to_thread(client._close_now)  # noqa: SLF001 - whichever kind it is
    assert len(server.stored) == source.count(".track(") * (1000 if "range(1000)" in source else 1)
