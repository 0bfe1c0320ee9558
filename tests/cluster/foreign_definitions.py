"""Definitions of other projects' kinds that the chart makes objects of, from the Go modules that hold them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tests.golang import ENVIRONMENT, MissingPartError

DOWNLOAD_SECONDS = 300.0


class Source(msgspec.Struct, frozen=True):
    """A module of a version, and the definitions in it."""

    module: str
    sum: str
    """What Go's checksum of the module has to be, as in a go.sum."""
    files: tuple[str, ...]


SOURCES = (
    Source(
        "github.com/kedacore/keda/v2@v2.21.0",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    ),
    Source(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
    Source(
        "sigs.k8s.io/gateway-api@v1.4.0",
        "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=",
        ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ),
)


class _Downloaded(msgspec.Struct, rename="pascal"):
    dir: str = ""
    sum: str = ""
    error: str = ""


def definition_files() -> Iterator[Path]:
    """Give the files, downloaded unless Go has them.

    Raises MissingPartError where they cannot be had, or are not what they were.
    """
    if shutil.which("go") is None:
        message = "the definitions of other projects' kinds are downloaded with Go, which is not installed"
        raise MissingPartError(message)
    for source in SOURCES:
        module = _download(source.module)
        if module.error or module.sum != source.sum:
            message = f"{source.module}: {module.error or f'its checksum is {module.sum}, not {source.sum}'}"
            raise MissingPartError(message)
        yield from (Path(module.dir, file) for file in source.files)


def _download(module: str) -> _Downloaded:
    with tempfile.TemporaryDirectory() as nowhere:  # in no module, whose versions would count
        done = subprocess.run(  # noqa: S603 - a module named above
            ["go", "mod", "download", "-json", module],  # noqa: S607 - whichever Go this machine has
            cwd=nowhere,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    return msgspec.json.decode(done.stdout, type=_Downloaded)
