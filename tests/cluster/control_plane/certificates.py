"""Who is who in the cluster: one authority, the API server's certificate, and one for each client.

A second authority vouches for the API server alone, where it hands requests on to the servers of aggregated APIs.
"""

from base64 import b64encode
from pathlib import Path

import msgspec
from trustme import CA, LeafCert

SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class Identity(msgspec.Struct, frozen=True):
    """A user as the API server sees one: a certificate's common name, and its organization as the one group."""

    user: str
    group: str


ADMINISTRATOR = Identity("the-eye:administrator", "system:masters")
CONTROLLER_MANAGER = Identity("system:kube-controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("system:kube-scheduler", "system:kube-scheduler")
FRONT_PROXY = Identity("front-proxy-client", "the-eye")
"""The API server itself, towards the servers of aggregated APIs."""


class Certificates:
    """An authority with what it has certified, in files where the API server wants files."""

    def __init__(self, folder: Path) -> None:
        self._ca = CA()
        self.ca_file = folder / "ca.crt"
        self.serving_certificate = folder / "server.crt"
        self.serving_key = folder / "server.key"
        self.token_key = folder / "tokens.key"
        """Signs the tokens of service accounts."""
        self._ca.cert_pem.write_to_path(self.ca_file)
        _write(self._ca.issue_cert(*SERVER_NAMES), self.serving_certificate, self.serving_key)
        self._ca.issue_cert("tokens.invalid").private_key_pem.write_to_path(self.token_key)
        self._front_proxy_ca = CA()
        self.front_proxy_ca_file = folder / "front-proxy-ca.crt"
        self.front_proxy_certificate = folder / "front-proxy.crt"
        self.front_proxy_key = folder / "front-proxy.key"
        self._front_proxy_ca.cert_pem.write_to_path(self.front_proxy_ca_file)
        _write(_client(self._front_proxy_ca, FRONT_PROXY), self.front_proxy_certificate, self.front_proxy_key)

    def credentials(self, identity: Identity) -> dict[str, str]:
        """Certify a client, and give what a kubeconfig says of its user."""
        issued = _client(self._ca, identity)
        return {
            "client-certificate-data": b64encode(issued.cert_chain_pems[0].bytes()).decode(),
            "client-key-data": b64encode(issued.private_key_pem.bytes()).decode(),
        }


def _client(authority: CA, identity: Identity) -> LeafCert:
    # Go refuses a certificate whose list of alternative names is empty.
    return authority.issue_cert("client.invalid", common_name=identity.user, organization_name=identity.group)


def _write(issued: LeafCert, certificate: Path, key: Path) -> None:
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
