"""The layers of images as they are handed over: archives that are named by their digests."""

import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

LEVEL = 6
"""What gzip, and so most of what builds images, compresses with."""


class Layer(msgspec.Struct, frozen=True):
    """One layer, uncompressed."""

    digest: str
    archive: Path


class Size(msgspec.Struct, frozen=True):
    """Bytes of a layer."""

    whole: int
    compressed: int


class Sizes(msgspec.Struct, frozen=True):
    """Bytes of an image."""

    whole: int
    compressed: int
    dependencies: int
    project: int


def read(folder: Path) -> tuple[Layer, ...]:
    """Find the layers, the base's first, in a folder that an image was pushed to."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    digests = [str(layer["digest"]) for layer in manifest["layers"]]
    return tuple(Layer(digest, folder / digest.rpartition(":")[2]) for digest in digests)


def distinct(images: Iterable[Iterable[Layer]]) -> list[Layer]:
    """Take each layer once, however many images have it."""
    return list({layer.digest: layer for layers in images for layer in layers}.values())


def measure(images: Mapping[str, tuple[Layer, ...]]) -> dict[str, Sizes]:
    """Give each image's sizes; its last two layers are the dependencies and the project."""
    layers = distinct(images.values())
    with ThreadPoolExecutor() as threads:
        sizes = dict(zip((layer.digest for layer in layers), threads.map(_size, layers), strict=True))
    return {name: _sum([sizes[layer.digest] for layer in its_layers]) for name, its_layers in images.items()}


def _size(layer: Layer) -> Size:
    content = layer.archive.read_bytes()
    return Size(len(content), len(zlib.compress(content, LEVEL)))


def _sum(sizes: list[Size]) -> Sizes:
    *_, dependencies, project = sizes
    whole, compressed = (sum(size.whole for size in sizes), sum(size.compressed for size in sizes))
    return Sizes(whole, compressed, dependencies.whole, project.whole)
