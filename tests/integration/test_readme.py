"""The commands of the README, in order, in one shell, as a newcomer pastes them. The first, ``make up``, has run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.machine import running

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ (.*(?:\\\n.*|\n  .*)*)", re.MULTILINE)

# What `rules test` says of events that break a rule; the sample has one.
ENDS_WITH_1 = "rules test"


def commands() -> list[str]:
    """Take the commands out of the page; what they print has no dollar sign in front."""
    found = [command for block in BLOCK.findall((ROOT / "README.md").read_text()) for command in COMMAND.findall(block)]
    assert found[0] == "make up"
    assert len(found) >= 8
    return found[1:]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README uses curl")
def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    for name, target in {"k8s": ROOT / "k8s", ".venv": Path(sys.prefix)}.items():
        (tmp_path / name).symlink_to(target)
    checked = [
        f"{command}; status=$?; [ $status -eq {int(ENDS_WITH_1 in command)} ] || exit 99" for command in commands()
    ]
    with running(tmp_path, rules=tmp_path / "k8s" / "rules") as machine:
        script = "\n".join(checked).replace("http://localhost:8000", machine.api)
        result = subprocess.run(  # noqa: S603 - our own page
            ["/bin/bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )

    assert result.returncode == 0, result.stdout + result.stderr
    assert '{"event_id":' in result.stdout
    assert "demo" in result.stdout
