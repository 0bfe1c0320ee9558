"""Writes the dashboards' JSON where the chart takes it from; observability/grafana leads to the same files."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from observability.dashboards import overview, rules, runtime
from observability.dashboards.panels import Board, build

FOLDER = Path(__file__).parents[2] / "charts" / "the-eye" / "files" / "dashboards"

BOARDS = (overview.BOARD, rules.BOARD, runtime.BOARD)


def make(board: Board) -> str:
    """Make the file of a dashboard."""
    return str(JSONEncoder(sort_keys=True, indent=1).encode(build(board))) + "\n"


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(make(board))


if __name__ == "__main__":
    main()
