"""Stand-ins for what Tilt gives a Tiltfile: they write down what they are told, and refuse what Tilt would refuse.

The parameters are those of Tilt's API reference, as far as this Tiltfile has use for them. The language is that of
starlark-pyo3, which is a little narrower than Tilt's.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python as helm
import msgspec
import starlark
import yaml

ROOT = Path(__file__).parents[2]

MANUAL = "manual"
WORKLOADS = {"CronJob", "DaemonSet", "Deployment", "Job", "Pod", "StatefulSet"}

PRELUDE = """
config = struct(tilt_subcommand = SUBCOMMAND)
"""


class TiltfileError(Exception):
    """Raised when Tilt would refuse a Tiltfile."""


class Image(msgspec.Struct, frozen=True):
    """An image that Tilt builds."""

    target: str
    entrypoint: list[str]
    live_update: list[dict[str, Any]]

    def steps(self, kind: str) -> list[dict[str, Any]]:
        """Give the steps of a kind with which a running container is changed."""
        return [step for step in self.live_update if step["step"] == kind]


class Resource(msgspec.Struct, frozen=True):
    """What Tilt shows and keeps up to date."""

    workload: str
    """Name of the object that makes pods; empty for a command on this machine."""
    command: list[str]
    resource_deps: list[str]
    ports: list[tuple[int, int]]
    is_manual: bool
    auto_init: bool


class Tilt:
    """One evaluation of the Tiltfile."""

    def __init__(self, *, context: str, subcommand: str = "up") -> None:
        self.allowed_contexts: list[str] = []
        self.commands: list[str] = []
        """Run on this machine while the Tiltfile is evaluated."""
        self.images: dict[str, Image] = {}
        self.manifests: list[dict[str, Any]] = []
        self.resources: dict[str, Resource] = {}
        self._context = context
        self._subcommand = subcommand

    def evaluate(self, path: Path) -> "Tilt":
        """Evaluate a Tiltfile. Raises starlark.StarlarkError, which holds what a stand-in has refused."""
        module = starlark.Module()
        module["SUBCOMMAND"] = self._subcommand
        module["TRIGGER_MODE_MANUAL"] = MANUAL
        for function in self._functions():
            module.add_callable(function.__name__, function)
        dialect = starlark.Dialect.extended()
        dialect.enable_top_level_stmt = True
        dialect.enable_load = False  # nothing comes from the network
        library = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
        for name, text in (("prelude", PRELUDE), (path.name, path.read_text())):
            starlark.eval(module, starlark.parse(name, text, dialect), library)
        return self

    def deleted(self) -> list[dict[str, Any]]:
        """Give the objects that `tilt down` deletes."""
        return [found for found in self.manifests if found["kind"] != "Namespace" and not _is_kept(found)]

    def _functions(self) -> list[Callable[..., Any]]:
        return [
            self.allow_k8s_contexts,
            self.k8s_context,
            self.local,
            self.docker_build,
            self.k8s_yaml,
            self.k8s_resource,
            self.local_resource,
            read_file,
            helm_template,
            decode_yaml_stream,
            encode_yaml_stream,
            sync,
            run,
            port_forward,
        ]

    def allow_k8s_contexts(self, contexts: str | list[str]) -> None:
        """Name clusters that are none of those on every developer's machine."""
        self.allowed_contexts += [contexts] if isinstance(contexts, str) else contexts

    def k8s_context(self) -> str:
        """Say which cluster kubectl talks to."""
        return self._context

    def local(self, command: str) -> str:
        """Run a command of a shell at once."""
        self.commands.append(command)
        return ""

    def docker_build(  # noqa: PLR0913 - Tilt's parameters
        self,
        ref: str,
        context: str,
        *,
        dockerfile: str = "Dockerfile",
        target: str = "",
        entrypoint: list[str] | None = None,
        live_update: list[dict[str, Any]] | None = None,
    ) -> None:
        """Have an image built, and containers of it changed while they run."""
        stages = re.findall(r"(?im)^FROM .* AS (\S+)$", (ROOT / context / dockerfile).read_text())
        refuse(target not in stages, f"{dockerfile} has no stage {target}")
        refuse(ref in self.images, f"{ref} is built twice")
        steps = live_update or []
        kinds = [step["step"] for step in steps]
        refuse("run" in kinds and "sync" in kinds[kinds.index("run") :], "no sync after a run")
        synced = [step["local"] for step in steps if step["step"] == "sync"]
        for trigger in (trigger for step in steps if step["step"] == "run" for trigger in step["trigger"]):
            refuse(not any(trigger == path or trigger.startswith(f"{path}/") for path in synced), "never triggered")
        self.images[ref] = Image(target, entrypoint or [], steps)

    def k8s_yaml(self, text: str) -> None:
        """Have objects applied."""
        self.manifests += decode_yaml_stream(text)

    def k8s_resource(  # noqa: PLR0913 - Tilt's parameters
        self,
        workload: str,
        *,
        new_name: str = "",
        port_forwards: list[list[int]] | None = None,
        trigger_mode: str = "",
        resource_deps: list[str] | None = None,
        pod_readiness: str = "",
        labels: list[str] | None = None,
    ) -> None:
        """Say more of what an object's pods are to Tilt."""
        known = [found["metadata"]["name"] for found in self.manifests if found["kind"] in WORKLOADS]
        refuse(known.count(workload) != 1, f"no single workload is named {workload}: {known}")
        refuse(pod_readiness not in {"", "ignore", "wait"}, f"pod_readiness={pod_readiness}")
        _check_labels(labels)
        ports = [(local, remote) for local, remote in port_forwards or []]
        name = new_name or workload
        self._add(name, Resource(workload, [], resource_deps or [], ports, trigger_mode == MANUAL, auto_init=True))

    def local_resource(  # noqa: PLR0913 - Tilt's parameters
        self,
        name: str,
        cmd: list[str],
        *,
        trigger_mode: str = "",
        resource_deps: list[str] | None = None,
        auto_init: bool = True,
        labels: list[str] | None = None,
    ) -> None:
        """Have a command run on this machine."""
        _check_labels(labels)
        self._add(name, Resource("", cmd, resource_deps or [], [], trigger_mode == MANUAL, auto_init))

    def _add(self, name: str, resource: Resource) -> None:
        refuse(name in self.resources, f"{name} is there twice")
        self.resources[name] = resource


def refuse(wrong: bool, why: str) -> None:  # noqa: FBT001 - it is the one thing that is said
    """Refuse what Tilt would refuse. Raises TiltfileError."""
    if wrong:
        raise TiltfileError(why)


def _is_kept(manifest: dict[str, Any]) -> bool:
    annotations = manifest["metadata"].get("annotations") or {}
    return bool(annotations.get("tilt.dev/down-policy") == "keep")


def _check_labels(labels: list[str] | None) -> None:
    for label in labels or []:
        refuse(not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", label), f"label {label!r}")


def read_file(file_path: str) -> str:
    """Read a file."""
    return (ROOT / file_path).read_text()


def helm_template(chart: str, *, name: str = "", namespace: str = "", values: list[str] | None = None) -> str:
    """Render a chart with the real Helm, as Tilt does: without its tests."""
    given: dict[str, Any] = {}
    for path in values or []:
        _merge(given, yaml.safe_load((ROOT / path).read_text()))
    with helm.Chart.load(str(ROOT / chart)) as loaded:
        loaded.validate_schema(given)
        rendered = loaded.render(given, name=name, namespace=namespace)
    return "\n---\n".join(text for path, text in rendered.items() if path.endswith(".yaml") and "/tests/" not in path)


helm_template.__name__ = "helm"


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    """Lay values over others, as Helm does with several files."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def decode_yaml_stream(text: str) -> list[dict[str, Any]]:
    """Decode all documents."""
    return [found for found in yaml.safe_load_all(text) if found]


def encode_yaml_stream(objects: list[dict[str, Any]]) -> str:
    """Encode as many documents."""
    return yaml.safe_dump_all(objects)


def sync(local_path: str, remote_path: str) -> dict[str, Any]:
    """Make the step that copies what was changed."""
    refuse(not (ROOT / local_path).exists(), f"there is no {local_path}")
    refuse(not remote_path.startswith("/"), f"{remote_path} is not absolute")
    return {"step": "sync", "local": local_path, "remote": remote_path}


def run(cmd: str, *, trigger: list[str] | None = None) -> dict[str, Any]:
    """Make the step that runs a shell's command in the container, where one of these was changed."""
    return {"step": "run", "command": cmd, "trigger": trigger or []}


def port_forward(local_port: int, container_port: int, *, name: str = "", link_path: str = "") -> list[int]:
    """Lead a port of this machine to a container's."""
    refuse(not name or not link_path.startswith("/"), "a link has a name and a path")
    return [local_port, container_port]
