"""The rules in ``k8s/rules`` compile and say what they are there for."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.rules.making import TOLERANCE, event, found

from the_eye.rules.directory import RuleDirectory

SAMPLES = Path(__file__).parents[3] / "k8s" / "rules"


@pytest.mark.parametrize(
    ("category", "name", "data", "expected"),
    [
        ("page interaction", "pageview", {"host": "www.consumeraffairs.com", "path": "/"}, []),
        ("page interaction", "pageview", {"host": "www.example.com"}, ["$.data.host schema.const"]),
        ("page interaction", "pageview", {"host": None}, ["$.data.host schema.const"]),
        ("page interaction", "pageview", {"path": "/"}, ["$.data schema.required"]),
        ("page interaction", "cta click", {"element": "chat bubble"}, []),
        ("page interaction", "cta click", {"element": "buy button", "host": "www.example.com"}, []),
        ("page interaction", "cta click", {"element": "banner"}, ["$.data.element schema.enum"]),
        ("page interaction", "cta click", {}, ["$.data schema.required"]),
        ("form interaction", "submit", {"form": {"first_name": "John", "last_name": "Doe"}}, []),
        ("form interaction", "submit", {"form": {"first_name": "é" * 255}}, []),
        (
            "form interaction",
            "submit",
            {"form": {"first_name": "é" * 256}},
            ["$.data.form.first_name schema.maxLength"],
        ),
        ("form interaction", "submit", {"first_name": "x" * 256}, ["$.data.first_name schema.maxLength"]),
        ("form interaction", "submit", {"form": {"first_name": 5}}, ["$.data.form.first_name schema.type"]),
        ("form interaction", "submit", {"form": "John"}, ["$.data.form schema.type"]),
        ("form interaction", "submit", {"form": {"email": "x"}}, []),
        ("form interaction", "open", {"first_name": "x" * 256}, []),
        ("anything", "else", {}, []),
    ],
)
def test_the_samples_judge(category: str, name: str, data: dict[str, Any], expected: list[str]) -> None:
    directory = RuleDirectory(SAMPLES, poll_seconds=1, future_tolerance=TOLERANCE)
    directory.load()

    verdict = directory.current.judge(event(data, category=category, name=name))

    assert directory.problems == ()
    assert found(verdict) == expected
