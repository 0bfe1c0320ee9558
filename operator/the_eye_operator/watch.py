"""Watching the ValidatorRules with kopf, in a thread and an event loop of its own.

Of its own because kopf, when it stops, ends every task of its loop that is younger than itself, and because it stops
for whatever it cannot mend: a definition that is gone, permissions that are missing. Then it is started anew.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf
import structlog

from the_eye.rules.manifest import GROUP, PLURAL, VERSION
from the_eye_operator import metrics
from the_eye_operator.backing_off import growing

REQUEST_SECONDS = 30.0
BACKOFFS = (1, 2, 4)
"""Seconds between kopf's own attempts; what fails longer begins anew with a list."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before watching begins anew."""

STOP_SECONDS = 10.0

OnEvent = Callable[[str | None, Mapping[str, Any]], object]

_log = structlog.get_logger(__name__)


class Watch:
    """Tells of every change of a ValidatorRule, as long as there is such a kind of object."""

    def __init__(self, namespaces: Collection[str], on_event: OnEvent, on_lost: Callable[[], object]) -> None:
        """Both callbacks are called in the watch's thread.

        ``on_event`` gets the type, which is ``DELETED`` or says that the object is there, and the object. ``on_lost``
        says that changes may have gone by unseen: a list is needed.
        """
        self._namespaces = frozenset(namespaces)
        self._on_lost = on_lost
        self._registry = _registry(on_event)
        self._allowed = threading.Event()
        self._stopping = threading.Event()
        self._current = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin, once ``allow`` has been called."""
        self._thread.start()

    def allow(self, namespaces: Collection[str]) -> None:
        """Say where ValidatorRules can be listed.

        Without their definition kopf would wait for good, and not notice it later; and one namespace that may not be
        watched ends the watching of all.
        """
        if self._namespaces != namespaces:
            self._namespaces = frozenset(namespaces)
            self._current.set()
        self._allowed.set()

    def forbid(self) -> None:
        """Say that ValidatorRules cannot be listed now: whatever watches is stopped, and waits for ``allow``."""
        self._allowed.clear()
        self._current.set()

    def restart(self) -> None:
        """Begin anew: the watch has missed something."""
        self._current.set()

    def stop(self) -> None:
        """End the watching."""
        self._stopping.set()
        self._current.set()
        self._allowed.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._allowed.wait()
            self._current = threading.Event()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            well = self._watched_well() or time.monotonic() - began > LONGEST_PAUSE
            failures = 0 if well else failures + 1
            metrics.WATCH_RESTARTS.inc()
            self._on_lost()
            self._stopping.wait(growing(FIRST_PAUSE, failures, LONGEST_PAUSE))

    def _watched_well(self) -> bool:
        """Watch until it fails or is to stop; false when it failed."""
        try:
            asyncio.run(self._watch(self._current))
        except Exception as error:  # noqa: BLE001 - whatever it is, watching has to go on
            if not self._stopping.is_set():
                _log.warning("watch_lost", error=f"{type(error).__name__}: {error}")
            return False
        return True

    async def _watch(self, ended: threading.Event) -> None:
        try:
            await kopf.operator(
                registry=self._registry,
                settings=_settings(),
                standalone=True,
                namespaces=self._namespaces,
                stop_flag=ended,
            )
        finally:
            ended.set()  # a thread of kopf's waits for it, also when kopf failed, and the event loop for that thread


def _registry(on_event: OnEvent) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(event["type"], event["object"])

    return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # it would take permissions for the whole cluster
    settings.posting.enabled = False
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.error_backoffs = BACKOFFS
    settings.process.ultimate_exiting_timeout = None  # the process is not kopf's to end
    return settings
