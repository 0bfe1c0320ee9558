"""How pip in a build reaches the package index as this machine's pip does: two files, given to the build as secrets."""

import ast
import configparser
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

CANARY = "# A line that must be found in no layer of an image."
"""Stands in both files, whatever else does."""

KEPT = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""Options that say where the index is; ``find-links`` is left out, for it names folders of this machine."""

CERTIFICATES_IN_BUILD = "/run/secrets/ca-certificates"
ASK_SECONDS = 60.0


def secrets(folder: Path) -> dict[str, Path]:
    """Write the files; gives them by the ids that the Dockerfile has."""
    options = read_options(_asked_pip())
    files = {"pip.conf": folder / "pip.conf"}
    kept = {key: options[key] for key in KEPT if key in options}
    if certificates := options.get("cert") or ssl.get_default_verify_paths().cafile:
        files["ca-certificates"] = folder / "ca-certificates"
        files["ca-certificates"].write_text(f"{CANARY}\n{Path(certificates).read_text()}")
        kept["cert"] = CERTIFICATES_IN_BUILD
    with files["pip.conf"].open("w") as out:
        out.write(f"{CANARY}\n")
        _parser(kept).write(out)
    return files


def hosts() -> set[str]:
    """Name the hosts of the indexes that this machine's configuration names; none where it leaves pip its default."""
    options = read_options(_asked_pip())
    urls = [url for key in ("index-url", "extra-index-url") for url in options.get(key, "").split()]
    return {host for url in urls if (host := urlsplit(url).hostname)}


def read_options(lines: Iterable[str]) -> dict[str, str]:
    """Read what ``pip config list`` prints; the environment wins over a command's section, and that over all's."""
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in sections:
            sections[section][key] = str(ast.literal_eval(value))
    return {key: value for options in sections.values() for key, value in options.items()}


def _parser(options: Mapping[str, str]) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser["global"] = options
    return parser


def _asked_pip() -> list[str]:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=ASK_SECONDS, check=True
    )
    return asked.stdout.splitlines()
