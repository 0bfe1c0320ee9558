"""ValidatorRules as the API server gives them, with as much in them as a test needs."""

from typing import Any

from tests.unit.rules.making import cel

from the_eye_operator.declared import Declared, read_declared

SOUND = cel("true")
BROKEN = cel("nonsense(")


def body(  # noqa: PLR0913 - what an object has
    name: str = "rule",
    *,
    uid: str = "",
    version: int = 1,
    generation: int = 1,
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An object in the namespace ``shop``; a sound rule unless a spec is given, with its name for a uid."""
    return {
        "apiVersion": "the-eye.io/v1alpha1",
        "kind": "ValidatorRule",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid or name,
            "resourceVersion": str(version),
            "generation": generation,
            "annotations": {f"the-eye.io/{key}": value for key, value in (annotations or {}).items()},
        },
        "spec": {"match": {}, **(spec or SOUND)},
        **({} if status is None else {"status": status}),
    }


def declared(name: str = "rule", *, paused: bool = False, **fields: Any) -> Declared:
    """The same, read."""
    return read_declared(body(name, annotations={"paused": "true"} if paused else None, **fields))
