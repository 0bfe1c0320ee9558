"""Finding out where the base's packages come from."""

from pathlib import Path

import pytest
from tests.images.base import BaseError, Source, read_source

TARGETS = (
    "bookworm bookworm http://mirror.example/debian/ main",
    "bookworm bookworm http://mirror.example/debian/ contrib",
    "bookworm-updates bookworm-updates http://mirror.example/debian/ main",
    "nodistro nodistro https://packages.example/ main",
)


def test_the_release_comes_with_its_components() -> None:
    assert read_source(TARGETS, "bookworm") == Source("bookworm", "http://mirror.example/debian/", ("main", "contrib"))


def test_before_apt_has_lists_there_is_no_code_name() -> None:
    assert read_source([" bookworm http://mirror.example/debian/ main"], "bookworm").components == ("main",)


def test_of_two_mirrors_the_first_is_taken() -> None:
    targets = [*TARGETS, "bookworm bookworm http://other.example/debian/ non-free"]
    assert read_source(targets, "bookworm").components == ("main", "contrib")


def test_of_a_list_of_mirrors_the_first_is_taken(tmp_path: Path) -> None:
    """Ubuntu's machines at GitHub have one."""
    (tmp_path / "mirrors").write_text("# nearest first\nhttp://near.example/ubuntu/\tpriority:1\nhttp://far.example/\n")
    targets = [f"noble noble mirror+file:{tmp_path}/mirrors/ main"]
    assert read_source(targets, "noble").mirror == "http://near.example/ubuntu/"


def test_a_release_without_a_source_is_told() -> None:
    with pytest.raises(BaseError, match="apt has no source for trixie"):
        read_source(TARGETS, "trixie")
