"""What the operator asks of the Kubernetes API server, and nothing else: the permissions of its Role follow from here.

Every call has a deadline and no retry of its own: what failed is tried again by the next reconcile, which begins with
what is true then.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx2
import msgspec
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Event, Pod
from lightkube.types import PatchType

from the_eye.rules.manifest import GROUP, PLURAL, VERSION
from the_eye.settings import SettingsError
from the_eye_operator import metrics

CALL_SECONDS = 15.0
"""Deadline of one call."""

PAGE = 500
"""Objects in one page of a list."""

ValidatorRules = create_namespaced_resource(GROUP, VERSION, "ValidatorRule", PLURAL)


class ClusterError(Exception):
    """Raised when the API server cannot be reached or refuses a call."""

    def __init__(self, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        """``status`` is the answer's, None where there was none; ``retry_after`` is in seconds."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def concerns_one_object(self) -> bool:
        """Whether other objects may fare better: the server is there and has looked at the call."""
        return self.status is not None and self.status not in _EVERYONES

    @property
    def forbidden(self) -> bool:
        """Whether a permission is missing."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def missing(self) -> bool:
        """Whether there is no such object, or no such kind of object."""
        return self.status == HTTPStatus.NOT_FOUND


_ANSWERS = {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}
"""What is no failure: that there is no such object, or that there is one already."""

_EVERYONES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, *(s for s in HTTPStatus if s >= 500)}  # noqa: PLR2004


class WorkerPod(msgspec.Struct, frozen=True):
    """A worker's pod."""

    name: str
    address: str
    """``host:port`` of its diagnostics; means nothing before it is ready."""
    ruleset: str
    """What the annotation on it says that the operator wants it to run."""
    is_ready: bool
    """Whether it is at work. One that waits for its first ruleset is not."""


class Cluster:
    """The API server, as the operator sees it."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        """Where the ruleset and the workers are."""

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def rules(self, namespace: str) -> list[dict[str, Any]]:
        """List a namespace's ValidatorRules.

        Raises ClusterError; ``missing`` says that their definition is not installed.
        """
        async with _translated(f"list validatorrules in {namespace}"):
            listed = self._client.list(ValidatorRules, namespace=namespace, chunk_size=PAGE)
            return [dict(rule) async for rule in listed]

    async def patch_status(self, namespace: str, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a rule's status; None deletes one. Returns the object as it is then."""
        async with _translated(f"patch the status of {namespace}/{name}"):
            patched = await self._client.patch(
                ValidatorRules.Status, name, {"status": status}, namespace=namespace, patch_type=PatchType.MERGE
            )
            return dict(patched)

    async def config_map(self, name: str) -> dict[str, str] | None:
        """Read a ConfigMap's data; None when there is no such ConfigMap."""
        try:
            async with _translated(f"get configmap {name}"):
                found = await self._client.get(ConfigMap, name, namespace=self.namespace)
        except ClusterError as error:
            if error.missing:
                return None
            raise
        return dict(found.data or {})

    async def change_config_map(self, name: str, data: Mapping[str, str | None], labels: Mapping[str, str]) -> None:
        """Set keys of a ConfigMap, delete those that are None, and leave the others; makes it when there is none."""
        patch = {"metadata": {"labels": labels}, "data": data}
        try:
            async with _translated(f"patch configmap {name}"):
                await self._client.patch(ConfigMap, name, patch, namespace=self.namespace, patch_type=PatchType.MERGE)
        except ClusterError as error:
            if not error.missing:
                raise
            await self._create_config_map(name, data, labels)

    async def _create_config_map(self, name: str, data: Mapping[str, str | None], labels: Mapping[str, str]) -> None:
        given = {key: value for key, value in data.items() if value is not None}
        metadata = ObjectMeta(name=name, namespace=self.namespace, labels=dict(labels))
        async with _translated(f"create configmap {name}"):
            await self._client.create(ConfigMap(metadata=metadata, data=given))

    async def worker_pods(self, selector: str, port: str, annotation: str) -> list[WorkerPod]:
        """List the workers' pods that are not about to end."""
        labels: dict[str, Any] = dict(pair.split("=", 1) for pair in selector.split(","))
        async with _translated("list pods"):
            pods = [pod async for pod in self._client.list(Pod, namespace=self.namespace, labels=labels)]
        found = [_worker_pod(pod, port, annotation) for pod in pods]
        return [pod for pod in found if pod is not None]

    async def annotate_pod(self, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations of a pod."""
        async with _translated(f"annotate pod {name}"):
            await self._client.patch(
                Pod,
                name,
                {"metadata": {"annotations": dict(annotations)}},
                namespace=self.namespace,
                patch_type=PatchType.MERGE,
            )

    async def create_event(self, event: Event) -> None:
        """Create a Kubernetes Event; one of the same name that is there already will do."""
        try:
            async with _translated("create an event"):
                await self._client.create(event)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise


def connect(namespace: str) -> Cluster:
    """Use the credentials of the pod's ServiceAccount, or those that ``KUBECONFIG`` names.

    Raises SettingsError when there are neither.
    """
    try:
        config = KubeConfig.from_env().get()
    except (ConfigError, OSError) as error:
        message = f"no credentials for the Kubernetes API: neither a ServiceAccount nor KUBECONFIG: {error}"
        raise SettingsError(message) from error
    client = AsyncClient(config=config, timeout=httpx2.Timeout(CALL_SECONDS), field_manager="the-eye-operator")
    return Cluster(client, namespace or client.namespace or "default")


@asynccontextmanager
async def _translated(what: str) -> AsyncIterator[None]:
    try:
        yield
    except httpx2.HTTPStatusError as error:
        reason = error.status.message if isinstance(error, ApiError) else error.response.reason_phrase
        message = f"{what}: {error.response.status_code} {reason}"
        if error.response.status_code not in _ANSWERS:
            metrics.API_ERRORS.labels(error.response.status_code).inc()
        raise ClusterError(message, error.response.status_code, _retry_after(error.response)) from error
    except (httpx2.HTTPError, OSError) as error:
        message = f"{what}: {type(error).__name__}: {error}"
        metrics.API_ERRORS.labels("none").inc()
        raise ClusterError(message) from error


def _retry_after(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _worker_pod(pod: Pod, port: str, annotation: str) -> WorkerPod | None:
    """Give None for a pod that is about to end."""
    metadata, status = pod.metadata, pod.status
    if metadata is None or metadata.deletionTimestamp or status is None:
        return None
    address = status.podIP or ""
    host = f"[{address}]" if ":" in address else address
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in status.conditions or ())
    return WorkerPod(
        name=metadata.name or "",
        address=f"{host}:{_port(pod, port)}",
        ruleset=(metadata.annotations or {}).get(annotation, ""),
        is_ready=ready and bool(address),
    )


def _port(pod: Pod, name: str) -> int:
    containers = pod.spec.containers if pod.spec else ()
    named = [port.containerPort for container in containers for port in container.ports or () if port.name == name]
    return named[0] if named else DEFAULT_PORT


DEFAULT_PORT = 9101
"""Where a worker answers whose pod names no port."""
