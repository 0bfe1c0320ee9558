"""A Kubernetes API server for the operator's tests: kmock for HTTP, paths and discovery, and here what it leaves out.

kmock's own emulator knows no resource versions, uids and generations, merges a status into the whole object, sends no
deletion that a watch slept through, passes label selectors over, and changes objects even where a test has it answer
with an error. What the real thing does beyond this is for the cluster tests.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from kmock import KubernetesError, KubernetesScaffold, Payload, Request, ResourceInfo, action

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace and name."""

RULES = "validatorrules"
NAMESPACE = "shop"
DEFINITION = "the-eye.io/v1alpha1/validatorrules"
CORE = {"v1/namespaces": "Namespace", "v1/pods": "Pod", "v1/configmaps": "ConfigMap", "v1/events": "Event"}
"""Without Events and namespaces kopf's watches never begin."""

MERGE = "application/merge-patch+json"


class Change(msgspec.Struct, frozen=True):
    """What a watch tells of."""

    version: int
    type: str
    key: Key
    object: Object


class Write(msgspec.Struct, frozen=True):
    """A request that changes something, if all goes well."""

    method: str
    plural: str
    namespace: str | None
    name: str | None
    subresource: str | None
    body: Any


class Failure:
    """Requests of one sort that fail, for a number of times or until it is over."""

    def __init__(self, wanted: Mapping[str, str | None], times: int) -> None:
        self._wanted = wanted
        self._left = times
        self.times: list[float] = []
        """When one failed, by the loop's clock."""

    def concerns(self, request: Request) -> bool:
        """Tell whether this request fails."""
        return self._left > 0 and all(_told(request)[key] == value for key, value in self._wanted.items())

    def happen(self) -> None:
        """Take note of one."""
        self._left -= 1
        self.times.append(asyncio.get_running_loop().time())

    def end(self) -> None:
        """Let them succeed again."""
        self._left = 0


class ApiServer:
    """Objects by plural, namespace and name, and what became of them."""

    def __init__(self, kmock: KubernetesScaffold) -> None:
        self._kmock = kmock
        self._objects: dict[Key, Object] = {}
        self._changes: list[Change] = []
        self._news = asyncio.Event()
        self._cut = asyncio.Event()
        self._version = 1000
        self._oldest = 0
        self._defined = True
        self.watching = 0
        """Connections of watches that are open."""
        self.answered: list[Request] = []
        """Those that were answered as a real server would have."""
        for name, kind in CORE.items():
            kmock.resources[name] = _known_as(kind, namespaced=kind != "Namespace")
        self.define()
        _ = kmock << self._answer

    # What a test does and sees.

    def kubeconfig(self, folder: Path) -> Path:
        """Write a file that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kmock", "cluster": {"server": str(self._kmock.url)}}],
            "users": [{"name": "kmock", "user": {"token": "a-token"}}],
            "contexts": [{"name": "kmock", "context": {"cluster": "kmock", "user": "kmock", "namespace": NAMESPACE}}],
            "current-context": "kmock",
        }
        path = folder / "kubeconfig"
        path.write_bytes(msgspec.json.encode(config))
        return path

    def apply(self, name: str, /, *, namespace: str = NAMESPACE, **spec: Any) -> Object:
        """Create a rule, or give it another spec."""
        key, wanted = (RULES, namespace, name), {"spec": {"match": {}, **spec}}
        if key in self._objects:
            return self._put(key, {**self._objects[key], **wanted})
        metadata = {"name": name, "namespace": namespace}
        head = {"apiVersion": "the-eye.io/v1alpha1", "kind": "ValidatorRule"}
        return self._create(key, {**head, "metadata": metadata, **wanted})

    def annotate(self, name: str, **annotations: str | None) -> None:
        """Set annotations ``the-eye.io/…`` of a rule; None removes one."""
        named = {f"the-eye.io/{key}": value for key, value in annotations.items()}
        self._patch((RULES, NAMESPACE, name), {"metadata": {"annotations": named}})

    def create_pod(self, pod: Object) -> None:
        """Create a pod."""
        self._create(("pods", NAMESPACE, pod["metadata"]["name"]), pod)

    def change_config_map(self, name: str, data: Mapping[str, str | None]) -> None:
        """Change a ConfigMap behind the operator's back."""
        self._patch(("configmaps", NAMESPACE, name), {"data": data})

    def delete(self, name: str, plural: str = RULES, namespace: str = NAMESPACE, *, unseen: bool = False) -> None:
        """Delete an object; a deletion that is ``unseen`` no watch is told of."""
        self._delete((plural, namespace, name))
        if unseen:
            self._changes.pop()

    def rule(self, name: str, namespace: str = NAMESPACE) -> Object:
        """Read a rule."""
        return self._objects[RULES, namespace, name]

    def status(self, name: str) -> Object:
        """Read a rule's status, empty while there is none."""
        status: Object = self.rule(name).get("status", {})
        return status

    def condition(self, name: str, type_: str) -> str:
        """Read a condition as ``status reason``, empty while it is not there."""
        found = [condition for condition in self.status(name).get("conditions", []) if condition["type"] == type_]
        return f"{found[0]['status']} {found[0]['reason']}" if found else ""

    def objects(self, plural: str) -> list[Object]:
        """All objects of one kind, by name."""
        return [found for key, found in sorted(self._objects.items()) if key[0] == plural]

    def data(self, name: str) -> dict[str, str]:
        """What a ConfigMap holds; nothing when there is none."""
        return dict(self._objects.get(("configmaps", NAMESPACE, name), {}).get("data", {}))

    def writes(self) -> list[Write]:
        """What was asked that changes something, if it was granted."""
        return [
            Write(r.method.value, r.resource.plural or "", r.namespace, r.name, r.subresource, r.data)
            for r in self.answered
            if r.resource is not None and r.method.value != "GET"
        ]

    def fail(
        self, status: HTTPStatus, *, times: int = 1_000_000, retry_after: str = "", **wanted: str | None
    ) -> Failure:
        """Let requests fail whose ``method``, ``plural``, ``namespace``, ``action`` and so on are as wanted."""
        failure = Failure(wanted, times)

        def refuse(request: Request) -> Payload:
            if not failure.concerns(request):
                raise NotImplementedError  # to kmock: let others answer
            failure.happen()
            return _status(status)

        reaction = self._kmock**1 << status.value << refuse
        if retry_after:
            _ = reaction << {"Retry-After": retry_after}
        return failure

    def hold(self, **wanted: str | None) -> asyncio.Event:
        """Let requests wait, as ``fail`` lets them fail, until the event is set."""
        release = asyncio.Event()

        async def wait(request: Request) -> Payload:
            if all(_told(request)[key] == value for key, value in wanted.items()):
                await release.wait()
            raise NotImplementedError  # to kmock: let others answer

        _ = self._kmock**2 << wait
        return release

    def define(self) -> None:
        """Know ValidatorRules."""
        self._defined = True
        self._kmock.resources[DEFINITION] = _known_as("ValidatorRule", "status")

    def undefine(self, *, deleted: bool = False) -> None:
        """Know no ValidatorRules, for a time or because their definition is ``deleted``, and they before it."""
        for key in [key for key in self._objects if deleted and key[0] == RULES]:
            self._delete(key)
        self._defined = False
        del self._kmock.resources[DEFINITION]
        if deleted:
            asyncio.get_running_loop().call_later(0.1, self.disconnect)  # after the deletions were told
        else:
            self.disconnect()

    def disconnect(self) -> None:
        """End every watch's connection."""
        self._cut.set()
        self._cut = asyncio.Event()

    def forget(self) -> None:
        """Forget what changed up to now: a watch that wants to go on from before is told that it is gone."""
        self._oldest = self._version
        self.disconnect()

    # What the server does.

    def _create(self, key: Key, given: Object) -> Object:
        if key in self._objects:
            raise _error(HTTPStatus.CONFLICT)
        identity = {"uid": str(uuid.uuid4()), "namespace": key[1], "generation": 1}
        return self._store("ADDED", key, {**given, "metadata": {**given["metadata"], **identity}})

    def _put(self, key: Key, wanted: Object) -> Object:
        known = self._objects[key]
        if wanted == known:
            return known
        edited = wanted.get("spec") != known.get("spec")
        generation = known["metadata"]["generation"] + edited
        return self._store("MODIFIED", key, {**wanted, "metadata": {**wanted["metadata"], "generation": generation}})

    def _patch(self, key: Key, patch: Mapping[str, Any]) -> Object:
        if key not in self._objects:
            raise _error(HTTPStatus.NOT_FOUND)
        return self._put(key, _merged(self._objects[key], patch))

    def _delete(self, key: Key) -> None:
        self._store("DELETED", key, self._objects[key])
        del self._objects[key]

    def _store(self, type_: str, key: Key, wanted: Object) -> Object:
        self._version += 1
        stored = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": str(self._version)}}
        self._objects[key] = stored
        self._changes.append(Change(self._version, type_, key, stored))
        self._news.set()
        self._news = asyncio.Event()
        return stored

    def _answer(self, request: Request) -> Payload:
        # Here and not in kmock's filters, which look through all requests there ever were, at each.
        if request.resource is None or not request.resource.plural:
            raise NotImplementedError  # to kmock, which knows discovery
        answer = self._answer_for(request, (request.resource.plural, request.namespace or "", request.name or ""))
        self.answered.append(request)
        return answer

    def _answer_for(self, request: Request, key: Key) -> Payload:
        if key[0] == RULES and not self._defined:
            raise _error(HTTPStatus.NOT_FOUND)
        match request.action:
            case action.LIST:
                return self._list(key, request.params)
            case action.WATCH:
                return self._watch(key, int(request.params["resourceVersion"]))
            case action.CREATE:
                return self._create((*key[:2], request.data["metadata"]["name"]), request.data)
            case action.UPDATE:
                assert request.headers["Content-Type"] == MERGE
                return self._patch(key, _allowed(request.data, key[0], request.subresource))
        if key not in self._objects:
            raise _error(HTTPStatus.NOT_FOUND)
        return self._objects[key]

    def _list(self, key: Key, params: Mapping[str, str]) -> Object:
        labels = dict(pair.split("=") for pair in params.get("labelSelector", "").split(",") if pair)
        found = [
            found
            for known, found in sorted(self._objects.items())
            if known[:2] == key[:2] and labels.items() <= found["metadata"].get("labels", {}).items()
        ]
        start = int(params.get("continue", "0"))
        end = start + int(params.get("limit", "1000"))
        more = {"continue": str(end)} if end < len(found) else {}
        return {"metadata": {"resourceVersion": str(self._version), **more}, "items": found[start:end]}

    async def _watch(self, key: Key, version: int) -> AsyncIterator[Payload]:
        yield b""  # the headers
        if version < self._oldest:
            yield {"type": "ERROR", "object": _status(HTTPStatus.GONE)}
            return
        cut = asyncio.create_task(self._cut.wait())
        self.watching += 1
        try:
            while not cut.done():
                news = asyncio.create_task(self._news.wait())
                for change in [change for change in self._changes if change.version > version]:
                    version = change.version
                    if change.key[:2] == key[:2]:
                        yield {"type": change.type, "object": change.object}
                await asyncio.wait([cut, news], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            self.watching -= 1
            cut.cancel()


def _known_as(kind: str, *subresources: str, namespaced: bool = True) -> ResourceInfo:
    verbs = ["get", "list", "watch", "patch", "create", "update", "delete"]
    return ResourceInfo(namespaced=namespaced, kind=kind, singular=kind.lower(), verbs=verbs, subresources=subresources)


def _told(request: Request) -> dict[str, str | None]:
    return {
        "method": request.method.value,
        "action": request.action.value.lower() if request.action else None,
        "plural": request.resource.plural if request.resource else None,
        "namespace": request.namespace,
        "name": request.name,
        "subresource": request.subresource,
    }


def _allowed(patch: Object, plural: str, subresource: str | None) -> Object:
    """Pass over what a request may not change: the status is for its subresource, the rest is not."""
    if plural != RULES:
        return patch
    return {field: value for field, value in patch.items() if (field == "status") == (subresource == "status")}


def _merged(value: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(value) if isinstance(value, Mapping) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), change)
    return merged


def _status(status: HTTPStatus) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "code": status.value,
        "reason": status.phrase.replace(" ", ""),
        "message": status.phrase,
    }


def _error(status: HTTPStatus) -> KubernetesError:
    return KubernetesError(status=status.value, reason=status.phrase.replace(" ", ""), message=status.phrase)
