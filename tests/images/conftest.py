"""All images of the Dockerfile, built once a run, and stores for their processes.

Base, layers and images stay in a cache folder of The Eye's (THE_EYE_CACHE, or ~/.cache/the-eye): about a gigabyte,
emptied when the Dockerfile, the requirements or the base's packages change.
"""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from tests.debian import MissingPartError
from tests.images import base, layers, package_index, sizes, tools
from tests.images.buildah import Buildah, Image
from tests.images.containers import Containers
from tests.images.layers import Layer, Sizes
from tests.images.stores import LoopbackPostgres, LoopbackValkey
from tests.servers import running
from tests.suites import left_out

ROOT = Path(__file__).parents[2]
TARGETS = ("api", "worker", "operator", "all")
TEST_SECONDS = 180.0

SIZES = pytest.StashKey[dict[str, Sizes]]()

Say = Callable[[str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of writing the documentation."""
    parser.addoption("--write-sizes", action="store_true", help="images: write their sizes into docs/images.md")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what is measured."""
    config.stash[SIZES] = {}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them: the first build takes minutes, and root."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests in time but not their fixtures, which build and have deadlines of their own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode) -> None:
    """Show the sizes, and write them into the documentation when that is asked for and all went well."""
    config = terminalreporter.config
    measured = config.stash[SIZES]
    if measured:
        terminalreporter.section("images")
        terminalreporter.write(sizes.table(measured))
    if measured and config.getoption("--write-sizes") and exitstatus == pytest.ExitCode.OK:
        sizes.write(measured)


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Shows the steps of what takes long as they come."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def _say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", end="", flush=True)  # noqa: T201 - for who waits

    return _say


def _without(missing: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def buildah(say: Say) -> Iterator[Buildah]:
    """A store with the base; its tests are skipped where images cannot be built, but in CI they fail."""
    try:
        tools.require()
    except MissingPartError as error:
        _without(str(error))
    folder = _cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock", say):
        buildah = Buildah(folder)
        buildah.release_mounts()
        _forget_others(buildah, folder / "key")
        if not buildah.has(base_name()):
            say("making the base with debootstrap, which takes a minute")
            with base.made(folder / "base") as made:
                buildah.take(made, base_name())
        yield buildah
        buildah.release_mounts()


@contextmanager
def _alone(file: Path, say: Say) -> Iterator[None]:
    """Let one run at a time into the store; the lock goes with the process, however it ends."""
    with file.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run of these tests")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def base_name() -> str:
    """Name the base's image."""
    return f"localhost/the-eye-base:{base.release()}"


def _cache() -> Path:
    if chosen := os.environ.get("THE_EYE_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "the-eye"


def _forget_others(buildah: Buildah, key_file: Path) -> None:
    """Empty the store of what no build will take from it again."""
    inputs = [ROOT / "Dockerfile", Path(base.__file__), *sorted((ROOT / "requirements").glob("*.txt"))]
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()
    if not key_file.exists() or key_file.read_text() != key:
        buildah.empty()
        key_file.write_text(key)


@pytest.fixture(scope="session")
def revision() -> str:
    """The commit that is checked out."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607 - git is where the system has it
    return asked.stdout.strip()


@pytest.fixture(scope="session")
def version() -> str:
    """The project's version."""
    return project_version()


def project_version() -> str:
    """Read the version of pyproject.toml."""
    read = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())
    return str(read["project"]["version"])


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a build's pip is told of the package index."""
    return package_index.secrets(tmp_path_factory.mktemp("secrets"))


Build = Callable[[Path, str, str], Image]
"""Builds a target of a folder's Dockerfile under a name."""


@pytest.fixture(scope="session")
def build(buildah: Buildah, version: str, revision: str, secrets: Mapping[str, Path]) -> Build:
    """Builds as `docker build` would, over the base of these tests."""
    arguments = {"BASE": base_name(), "VERSION": version, "REVISION": revision}

    def _build(context: Path, target: str, name: str) -> Image:
        buildah.build(context, target, name, arguments, secrets)
        return buildah.inspect(name)

    return _build


@pytest.fixture(scope="session")
def images(build: Build, say: Say) -> dict[str, Image]:
    """Every image by its target."""
    made = {}
    for target in TARGETS:
        say(f"building {target}")
        made[target] = build(ROOT, target, f"localhost/the-eye/{target}:latest")
    return made


@pytest.fixture(scope="session")
def containers(
    buildah: Buildah, images: Mapping[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Containers]]:
    """What starts each image's processes, by its target."""
    with ExitStack() as mounts:
        roots = {target: mounts.enter_context(buildah.mounted(image.name)) for target, image in images.items()}
        yield {
            target: Containers(image, roots[target], tmp_path_factory.mktemp(target))
            for target, image in images.items()
        }


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """Each target in turn."""
    return str(request.param)


@pytest.fixture
def image(images: Mapping[str, Image], target: str) -> Image:
    """Each image in turn."""
    return images[target]


@pytest.fixture
def its_containers(containers: Mapping[str, Containers], target: str) -> Containers:
    """What starts each image's processes, in turn."""
    return containers[target]


@pytest.fixture(scope="session")
def image_layers(
    buildah: Buildah, images: Mapping[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Layer, ...]]:
    """Each image's layers by its target."""
    pushed = {}
    for target, image in images.items():
        folder = tmp_path_factory.mktemp(f"{target}-layers")
        buildah.push(image.name, folder)
        pushed[target] = layers.read(folder)
    return pushed


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> dict[str, Sizes]:
    """Sizes by target, which are shown at the end."""
    return pytestconfig.stash[SIZES]


@pytest.fixture(scope="session")
def stores() -> Iterator[dict[str, str]]:
    """PostgreSQL and Valkey; gives the settings that lead there."""
    with running(LoopbackPostgres) as postgres, running(LoopbackValkey) as valkey:
        assert isinstance(postgres, LoopbackPostgres)
        assert isinstance(valkey, LoopbackValkey)
        yield {"THE_EYE_DATABASE_URL": postgres.create_database("the_eye"), "THE_EYE_REDIS_URL": valkey.url()}
