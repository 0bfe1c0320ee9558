"""Rules of which one matches each event of the benchmark, and the others none."""

from pathlib import Path

import msgspec

from the_eye.rules.manifest import API_VERSION


def write_rules(folder: Path, count: int) -> Path:
    """Write ``count`` rules into a directory of their own."""
    directory = folder / f"rules-{count}"
    directory.mkdir(exist_ok=True)
    manifests = [_rule("matches", "*", "*"), *(_other(number) for number in range(1, count))]
    # JSON is YAML.
    (directory / "rules.yaml").write_bytes(b"\n---\n".join(map(msgspec.json.encode, manifests)))
    return directory


def _other(number: int) -> dict[str, object]:
    """Make a rule for other events: every second one for a glob, which takes more work to rule out."""
    return _rule(f"other-{number}", f"other {number}{' *' * (number % 2)}", "happened")


def _rule(name: str, category: str, event: str) -> dict[str, object]:
    return {
        "apiVersion": API_VERSION,
        "kind": "ValidatorRule",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "match": {"category": category, "name": event},
            "schema": {"type": "object", "required": ["host"], "properties": {"host": {"type": "string"}}},
            "validations": [{"expression": "event.data.host.startsWith('www.')", "message": "the host is a www"}],
        },
    }
