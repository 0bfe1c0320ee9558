"""What the loop tells the watch; all else the tests of the whole operator show."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pytest

from the_eye.settings import OperatorSettings
from the_eye_operator.cluster import ClusterError
from the_eye_operator.publishing import Publisher
from the_eye_operator.reconciling import Reconciler


class Refusing:
    """A cluster that lists nothing, and a watch that notes what it is told."""

    def __init__(self, error: ClusterError) -> None:
        self._error = error
        self.told: list[str] = []

    async def rules(self, namespace: str) -> list[dict[str, Any]]:
        """As the cluster does it."""
        assert namespace == "shop"
        raise self._error

    async def config_map(self, _: str) -> dict[str, str]:
        """As the cluster does it."""
        return {}

    def allow(self, namespaces: Collection[str]) -> None:
        """As the watch is told."""
        assert namespaces == {"shop"}
        self.told.append("allow")

    def forbid(self) -> None:
        """As the watch is told."""
        self.told.append("forbid")

    def restart(self) -> None:
        """As the watch is told."""
        self.told.append("restart")


@pytest.mark.parametrize(("status", "told"), [(404, ["forbid"]), (503, []), (403, []), (None, [])])
async def test_a_watch_is_forbidden_where_there_is_no_such_kind_and_not_for_other_failures(
    status: int | None, told: list[str]
) -> None:
    """Without the definition kopf would wait for good, and not notice when it is there again."""
    refusing = Refusing(ClusterError("refused", status))
    cluster: Any = refusing
    observer: Any = None
    reconciler = Reconciler(cluster, ["shop"], OperatorSettings(), Publisher(cluster, "the-eye-ruleset"))

    with suppress(ClusterError):
        await reconciler.reconcile(refusing, observer)

    assert refusing.told == told
