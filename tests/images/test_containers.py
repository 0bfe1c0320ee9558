"""How containers are confined, as far as no container has to be started for it."""

import platform
from typing import Any

import pytest
from tests.images.containers import seccomp


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of the profile."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def profile(*rules: dict[str, Any]) -> dict[str, Any]:
    """A profile in the form that has conditions."""
    architectures = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": None},
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": architectures,
        "syscalls": rules,
    }


def names(*rules: dict[str, Any]) -> list[str]:
    """The system calls of the rules that are left."""
    return [name for rule in seccomp(profile(*rules))["syscalls"] for name in rule["names"]]


def test_what_takes_a_capability_is_not_let_through() -> None:
    plain = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}}
    privileged = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}
    others = {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}
    assert names(plain, privileged, others) == ["read", "mount"]


def test_what_is_of_another_architecture_is_left_out() -> None:
    ours = {"names": ["ours"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}}
    other = {"names": ["other"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
    assert names(ours, other) == ["ours"]
    assert seccomp(profile())["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
