"""What is in each image, and what is not.

The base's own contents are not judged, beyond what must be gone from it; nor is python:3.13-slim, which only a
registry has.
"""

import json
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from tests.images.buildah import Image
from tests.images.conftest import ROOT, base_name
from tests.images.containers import WRITABLE, Containers
from tests.images.layers import Layer, Sizes, distinct, measure
from tests.images.package_index import CANARY, hosts

OURS = ("opt/python", "opt/the-eye")
LABEL = "org.opencontainers.image."

INSTALLERS = re.compile(
    r"(pip|pip[-\d].*|ensurepip|setuptools(-.*)?|wheel(-.*)?|pkg_resources|.*\.whl|uv|hatch|hatchling)"
)
COMPILERS = re.compile(r"(.*-)?(cc|gcc|g\+\+|c\+\+|clang|cpp|as|ld|make|cmake|cargo|rustc|go|git)(-[\d.]+)?")

WRITABLE_BY_ALL = {"tmp", "var/tmp", "run/lock"}
"""As in every Debian; a read-only root leaves none of them but the chart's own /tmp."""


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if not path.is_symlink() and path.is_file())


def test_an_image_is_of_a_user_who_is_not_root(image: Image) -> None:
    """In numbers, which is how Kubernetes can know it before it starts anything."""
    assert image.config["User"] == "65532:65532"


def test_an_image_starts_its_own_command(image: Image, target: str) -> None:
    expected = "--help" if target == "all" else target
    assert image.command == ["the-eye", expected]


def test_an_image_says_what_it_is(image: Image, target: str, version: str, revision: str) -> None:
    """There is no source, for no address is known that would stay true."""
    labels = {key.removeprefix(LABEL): value for key, value in image.labels.items() if key.startswith(LABEL)}
    names = {"api": "The Eye: API", "worker": "The Eye: worker", "operator": "The Eye: operator", "all": "The Eye"}
    assert labels.pop("description")
    assert labels == {
        "title": names[target],
        "version": version,
        "revision": revision,
        "licenses": "Apache-2.0",
        "base.name": base_name(),
    }


def test_an_image_has_no_health_check(image: Image) -> None:
    """Kubernetes' probes are the only ones; Docker's would run beside them and know less.

    The OCI's format has no place for one, so that a build here would drop it.
    """
    assert "Healthcheck" not in image.config
    assert "HEALTHCHECK" not in (ROOT / "Dockerfile").read_text()


def test_the_version_is_told(its_containers: Containers, version: str) -> None:
    result = its_containers.run("the-eye", "--version")
    assert result.stdout == f"the-eye {version}\n", result.stderr


def test_nothing_can_install_packages(its_containers: Containers) -> None:
    """Neither pip and its like, nor the wheels that Python would make one of."""
    found = {str(path) for path in its_containers.root.rglob("*") if INSTALLERS.fullmatch(path.name)}
    assert found == set()


def test_nothing_can_compile(its_containers: Containers) -> None:
    folders = [its_containers.root / name for name in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/python/bin")]
    found = {path.name for folder in folders for path in folder.iterdir() if COMPILERS.fullmatch(path.name)}
    assert found == set()


def test_every_module_has_its_bytecode(its_containers: Containers) -> None:
    """Also the standard library's: on a read-only root none is ever written, and each start would compile it again."""
    (library,) = its_containers.root.glob("usr/lib/python3.*")
    folders = [library, *(its_containers.root / name for name in OURS)]
    sources = [path for folder in folders for path in _files(folder) if path.suffix == ".py"]
    assert len(sources) > 1_000
    without = [path for path in sources if "lib2to3" not in path.parts and not _has_bytecode(path)]
    assert without[:5] == []


def _has_bytecode(source: Path) -> bool:
    """Compare as Python does: it takes bytecode for a source of that time and size alone."""
    compiled = next(source.parent.glob(f"__pycache__/{source.stem}.cpython-3??.pyc"), None)
    if compiled is None:
        return False
    flags, time, size = (int.from_bytes(compiled.read_bytes()[at : at + 4], "little") for at in (4, 8, 12))
    found = source.stat()
    return flags == 0 and (time, size) == (int(found.st_mtime), found.st_size)


def test_what_runs_is_not_its_user_s_to_change(its_containers: Containers) -> None:
    root = its_containers.root
    anyones = {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH and not path.is_relative_to(root / "dev")
    }
    assert anyones <= WRITABLE_BY_ALL
    assert {path.stat().st_uid for name in OURS for path in (root / name).rglob("*")} == {0}


def test_no_layer_knows_the_package_index(
    images: Mapping[str, Image], image_layers: Mapping[str, tuple[Layer, ...]]
) -> None:
    """Neither what pip was told in the build nor the hosts that stand in it."""
    secret = [CANARY.encode(), *(host.encode() for host in hosts())]
    for layer in distinct(image_layers.values()):
        content = layer.archive.read_bytes()
        assert [word for word in secret if word in content] == [], layer
    for image in images.values():
        told = msgspec.json.encode((image.config, image.history))
        assert [word for word in secret if word in told] == []


def test_an_image_is_little_more_than_its_packages(
    image_layers: Mapping[str, tuple[Layer, ...]], measured: dict[str, Sizes]
) -> None:
    """Sizes are shown at the end; what makes an image ten times as large is seen here."""
    measured.update(measure(image_layers))
    for sizes in measured.values():
        assert sizes.project < 5_000_000
        assert sizes.dependencies < 300_000_000


def test_the_dependencies_are_a_layer_and_the_code_is_the_next(
    images: Mapping[str, Image], image_layers: Mapping[str, tuple[Layer, ...]]
) -> None:
    """Below them is what all images share."""
    assert len({image.layers[:-2] for image in images.values()}) == 1
    for *_, dependencies, code in image_layers.values():
        assert _tops(dependencies) == {"opt", "opt/python"}
        assert _tops(code) == {"opt", "opt/the-eye"}


def _tops(layer: Layer) -> set[str]:
    with tarfile.open(layer.archive) as archive:
        return {"/".join(Path(name).parts[:2]) for name in archive.getnames()}


def test_an_image_cannot_run_the_others_commands(containers: Mapping[str, Containers]) -> None:
    """It installs only what its own process needs, and says so."""
    result = containers["worker"].run("the-eye", "api")
    assert result.returncode != 0
    assert "`the-eye api` needs the module" in result.stderr


def test_a_container_is_confined(its_containers: Containers) -> None:
    """These tests start processes as the `restricted` Pod Security Standard demands."""
    told = its_containers.run("python3", "-c", CONFINEMENT)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {
        "ids": [65532, 65532],
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "NoNewPrivs": 1,
        "Seccomp": 2,
        "writable": [WRITABLE],
    }


CONFINEMENT = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
told = {"ids": [os.getuid(), os.getgid()]}
told |= {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
folders = ("/", "/etc", "/opt/python", "/opt/the-eye", "/run", "/tmp", "/usr", "/var/tmp")
told["writable"] = [folder for folder in folders if os.access(folder, os.W_OK)]
print(json.dumps(told))
"""
