"""What a change makes anew."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.images.buildah import Buildah, Image
from tests.images.conftest import ROOT, Build

CONTEXT = (
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "operator",
    "pyproject.toml",
    "requirements",
    "services",
)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A copy of what is built from."""
    for name in CONTEXT:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tmp_path / name)
        else:
            shutil.copy2(path, tmp_path / name)
    return tmp_path


@pytest.fixture
def changed(build: Build, buildah: Buildah, context: Path) -> Iterator[Image]:
    """The API's image with a change of the code that all images have."""
    with (context / "services" / "core" / "the_eye" / "event.py").open("a") as module:
        module.write('\n"""A change."""\n')
    name = "localhost/the-eye/api:changed"
    yield build(context, "api", name)
    buildah.forget(name)


def test_a_change_of_the_code_leaves_the_dependencies(images: Mapping[str, Image], changed: Image) -> None:
    assert changed.layers[:-1] == images["api"].layers[:-1]
    assert changed.layers[-1] != images["api"].layers[-1]
