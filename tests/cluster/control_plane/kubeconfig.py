"""Kubeconfig files that hold all they need: one may be copied anywhere, and into a pod."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where an API server is, and whose certificate it must show."""

    server: str
    ca_file: Path

    def kubeconfig(self, user: Mapping[str, str], namespace: str = "default") -> bytes:
        """Write down how ``user`` gets there, in JSON, which is YAML too."""
        cluster = {"server": self.server, "certificate-authority-data": b64encode(self.ca_file.read_bytes()).decode()}
        context = {"cluster": "the-eye", "user": "the-eye", "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "the-eye", "cluster": cluster}],
            "users": [{"name": "the-eye", "user": user}],
            "contexts": [{"name": "the-eye", "context": context}],
            "current-context": "the-eye",
        }
        return msgspec.json.encode(document)
