"""Swagger UI's files, from their package: the page works with no other server."""

from importlib.util import find_spec
from pathlib import Path

ASSETS_PATH = "/api/assets/swagger-ui"


def assets_directory() -> Path:
    """Find the folder; the package's name for it holds Swagger UI's version.

    Raises ModuleNotFoundError when the package is not installed.
    """
    spec = find_spec("swagger_ui_bundle")
    if spec is None or spec.origin is None:
        message = "swagger-ui-bundle-v2 is not installed: install the-eye[api]"
        raise ModuleNotFoundError(message)
    (directory,) = Path(spec.origin).parent.glob("vendor/swagger-ui-*")
    return directory
