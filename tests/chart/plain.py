"""The manifests for those who have no Helm: the chart as it comes, without what only Helm understands."""

from collections.abc import Iterator

import helm_python as helm
import yaml
from tests.chart.values import CHART

FILE = CHART.parents[1] / "k8s" / "manifests" / "the-eye.yaml"
NAMESPACE = "the-eye"
RELEASE = "the-eye"
SECRET = "the-eye-try-out"  # noqa: S105 - its name

HEAD = """\
# The Eye with stores to try it out, in the namespace the-eye, for those who have no Helm. Made of charts/the-eye by
# `python -m tests.chart.generate`. The passwords of the stores are not in it; k8s/README.md says how it is installed.
"""
MANAGED_BY_HELM = "app.kubernetes.io/managed-by: Helm"


def make() -> str:
    """Make the file."""
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render({"tryOut": {"existingSecret": SECRET}}, name=RELEASE, namespace=NAMESPACE)
    return HEAD + "".join(f"---\n{document}" for document in _documents(rendered))


def _documents(rendered: dict[str, str]) -> Iterator[str]:
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml") and "/tests/" not in path and any(yaml.safe_load_all(text)):
            lines = [line.rstrip() for line in text.strip().splitlines() if line.strip() != MANAGED_BY_HELM]
            yield f"# {path}\n" + "\n".join(lines) + "\n"
