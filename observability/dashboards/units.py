"""Numbers as people read them, in the units that the dashboards use; short, as Grafana writes them."""

from collections.abc import Callable, Sequence

SCALES: Sequence[tuple[float, str]] = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
BYTES: Sequence[tuple[float, str]] = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))
TIMES: Sequence[tuple[float, str]] = (
    (86_400, " days"),
    (3_600, " hours"),
    (60, " mins"),
    (1, " s"),
    (1e-3, " ms"),
    (1e-6, " µs"),
)
RATES = {"eps": " evt/s", "reqps": " req/s", "ops": " ops/s", "cps": " c/s", "wps": " wr/s"}

DIGITS = 3
"""Digits that count, where nobody says otherwise."""


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Write a value in a unit, by Grafana's name of it. Raises KeyError for a unit that no dashboard had so far."""
    if unit in RATES:
        return _scaled(value, decimals, SCALES) + RATES[unit]
    return UNITS[unit](value, decimals)


def _scaled(value: float, decimals: int | None, scales: Sequence[tuple[float, str]], plain: str = "") -> str:
    for factor, name in scales:
        if abs(value) >= factor:
            return _number(value / factor, decimals) + name
    return _number(value, decimals) + plain


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.0f}" if abs(value) >= 10 ** (DIGITS - 1) else f"{value:.{DIGITS}g}"


UNITS: dict[str, Callable[[float, int | None], str]] = {
    "short": lambda value, decimals: _scaled(value, decimals, SCALES),
    "percentunit": lambda value, decimals: _number(value * 100, decimals) + "%",
    "s": lambda value, decimals: _scaled(value, decimals, TIMES, " s"),
    "bytes": lambda value, decimals: _scaled(value, decimals, BYTES, " B"),
    "binBps": lambda value, decimals: _scaled(value, decimals, BYTES, " B") + "/s",
    "bool_yes_no": lambda value, _: "Yes" if value else "No",
}
