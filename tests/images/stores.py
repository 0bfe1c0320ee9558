"""PostgreSQL and Valkey on loopback: a container's user may not open the sockets of the tests' servers."""

from pathlib import Path

from tests.machine import free_addresses
from tests.servers import Postgres, Valkey


class LoopbackPostgres(Postgres):
    """PostgreSQL that everyone on this machine may use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._address,) = free_addresses(1)

    def command(self) -> list[str]:
        """Listen on loopback; the last of two settings counts."""
        host, _, port = self._address.partition(":")
        return [*super().command(), "-c", f"listen_addresses={host}", "-p", port]

    def url(self, database: str = "the_eye") -> str:
        """Where a database is."""
        return f"postgresql://the_eye@{self._address}/{database}?sslmode=disable"


class LoopbackValkey(Valkey):
    """Valkey that everyone on this machine may use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._address,) = free_addresses(1)

    def command(self) -> list[str]:
        """Listen on loopback; the last of two options counts."""
        host, _, port = self._address.partition(":")
        return [*super().command(), "--bind", host, "--port", port]

    def url(self) -> str:
        """Where it is."""
        return f"redis://{self._address}"
