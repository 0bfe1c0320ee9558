"""The `the-eye` command itself, run as a process; what its subcommands do is tested with them."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from the_eye_cli.main import COMMANDS, short_help

PLUGIN = '''
import click
from the_eye.settings import ApiSettings

@click.command()
def example() -> None:
    """Do what examples do.

    At length.
    """
    ApiSettings.load()
    click.echo("done")
'''


def install(folder: Path, source: str) -> None:
    """Install a distribution with the command `example` from the package `the_eye_extra`."""
    package = folder / "the_eye_extra"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "command.py").write_text(source)
    metadata = folder / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{COMMANDS}]\nexample = the_eye_extra.command:example\n")


def the_eye(folder: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with what is installed in `folder`."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "the_eye_cli", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_comes_from_whatever_distribution_names_it(tmp_path: Path) -> None:
    install(tmp_path, PLUGIN)

    ran = the_eye(tmp_path, "example")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


def test_help_lists_a_command_with_its_first_line_and_does_not_import_it(tmp_path: Path) -> None:
    install(tmp_path, f"raise SystemExit('imported')\n{PLUGIN}")

    ran = the_eye(tmp_path, "--help")

    assert ran.returncode == 0
    assert [line.split() for line in ran.stdout.splitlines() if "example" in line] == [
        ["example", "Do", "what", "examples", "do."]
    ]


def test_each_command_of_the_eye_has_a_line_of_help() -> None:
    commands = {entry.name: short_help(entry) for entry in entry_points(group=COMMANDS)}

    assert set(commands) >= {"api", "application", "dead", "maintain", "migrate", "rules", "token", "up", "worker"}
    assert [name for name, text in commands.items() if not text] == []


def test_a_setting_that_does_not_fit_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    install(tmp_path, PLUGIN)

    ran = the_eye(tmp_path, "example", THE_EYE_API_LISTEN="8000")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "THE_EYE_API_LISTEN='8000'" in ran.stderr


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(f"import no_such_package.part\n{PLUGIN}", id="when it is imported"),
        pytest.param(PLUGIN.replace("ApiSettings.load()", "import no_such_package"), id="when it is run"),
    ],
)
def test_a_package_that_is_missing_is_one_line_that_names_the_extra(tmp_path: Path, source: str) -> None:
    install(tmp_path, source)

    ran = the_eye(tmp_path, "example")

    assert ran.returncode == 1
    assert ran.stderr == ("Error: `the-eye example` needs the module no_such_package: pip install 'the-eye[extra]'\n")


def test_a_module_of_the_eye_that_is_missing_is_a_fault_with_its_traceback(tmp_path: Path) -> None:
    install(tmp_path, f"import the_eye.no_such_module\n{PLUGIN}")

    ran = the_eye(tmp_path, "example")

    assert ran.returncode == 1
    assert "ModuleNotFoundError: No module named 'the_eye.no_such_module'" in ran.stderr


def test_an_unknown_command_is_a_wrong_use(tmp_path: Path) -> None:
    ran = the_eye(tmp_path, "nonsense")

    assert ran.returncode == 2
    assert "No such command 'nonsense'" in ran.stderr


def test_version_names_the_distribution(tmp_path: Path) -> None:
    ran = the_eye(tmp_path, "--version")

    assert ran.returncode == 0
    assert ran.stdout.startswith("the-eye ")
