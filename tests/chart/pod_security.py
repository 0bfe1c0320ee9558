"""The `restricted` Pod Security Standard, control by control, as Kubernetes' documentation defines it."""

from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]

BASELINE_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
VOLUMES = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
)
SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
SECCOMP = frozenset({"RuntimeDefault", "Localhost"})
SYSCTLS = frozenset(
    {
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    }
)


def faults(spec: Spec, annotations: dict[str, str] | None = None) -> list[str]:
    """Say by what controls a pod does not meet the standard."""
    pod = spec.get("securityContext", {})
    broken = [name for name, is_broken in OF_PODS.items() if is_broken(spec)]
    for container in _containers(spec):
        own = container.get("securityContext", {})
        broken += [f"{container['name']}: {name}" for name, is_met in OF_CONTAINERS.items() if not is_met(own, pod)]
        broken += [f"{container['name']}: {name}" for name, is_broken in OF_FIELDS.items() if is_broken(container)]
    if any("apparmor" in key and value == "unconfined" for key, value in (annotations or {}).items()):
        broken.append("AppArmor")
    return broken


def _containers(spec: Spec) -> list[Spec]:
    return [
        *spec.get("initContainers", ()),
        *spec["containers"],
        *spec.get("ephemeralContainers", ()),
    ]


def _inherited(key: str, own: Spec, pod: Spec) -> Any:
    return own[key] if key in own else pod.get(key)


def _unsafe_sysctls(spec: Spec) -> bool:
    return any(each["name"] not in SYSCTLS for each in spec.get("securityContext", {}).get("sysctls", ()))


def _volume_types(spec: Spec) -> set[str]:
    return {key for volume in spec.get("volumes", ()) for key in volume if key != "name"}


OF_PODS: dict[str, Callable[[Spec], bool]] = {
    "Host Namespaces": lambda spec: any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "Volume Types": lambda spec: not _volume_types(spec) <= VOLUMES,
    "Sysctls": _unsafe_sysctls,
    "Running as Non-root user (pod)": lambda spec: spec.get("securityContext", {}).get("runAsUser") == 0,
}


def _selinux(own: Spec, pod: Spec) -> bool:
    options = [context.get("seLinuxOptions", {}) for context in (own, pod)]
    return all(
        option.get("type", "") in SELINUX_TYPES and not option.get("user") and not option.get("role")
        for option in options
    )


OF_CONTAINERS: dict[str, Callable[[Spec, Spec], bool]] = {
    "HostProcess": lambda own, pod: not (_inherited("windowsOptions", own, pod) or {}).get("hostProcess"),
    "Privileged Containers": lambda own, _: not own.get("privileged"),
    "Capabilities (baseline)": lambda own, _: set(own.get("capabilities", {}).get("add", ())) <= BASELINE_CAPABILITIES,
    "SELinux": _selinux,
    "/proc Mount Type": lambda own, _: own.get("procMount", "Default") == "Default",
    "AppArmor": lambda own, pod: (_inherited("appArmorProfile", own, pod) or {}).get("type") != "Unconfined",
    "Privilege Escalation": lambda own, _: own.get("allowPrivilegeEscalation") is False,
    "Running as Non-root": lambda own, pod: _inherited("runAsNonRoot", own, pod) is True,
    "Running as Non-root user": lambda own, _: own.get("runAsUser") != 0,
    "Seccomp": lambda own, pod: (_inherited("seccompProfile", own, pod) or {}).get("type") in SECCOMP,
    "Capabilities": lambda own, _: (
        "ALL" in own.get("capabilities", {}).get("drop", ())
        and set(own["capabilities"].get("add", ())) <= {"NET_BIND_SERVICE"}
    ),
}
"""By the container's security context and the pod's, whether a control is met."""


def _hosts(container: Spec) -> Iterator[str]:
    """The hosts that probes and hooks name: a kubelet would ask them from the node."""
    asked = [container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")]
    asked += container.get("lifecycle", {}).values()
    for each in asked:
        for how in ("httpGet", "tcpSocket"):
            if host := each.get(how, {}).get("host"):
                yield host


OF_FIELDS: dict[str, Callable[[Spec], bool]] = {
    "Host Ports": lambda container: any(port.get("hostPort") for port in container.get("ports", ())),
    "Host Probes / Lifecycle Hooks": lambda container: any(_hosts(container)),
}
