"""All dashboards, and the files that the chart holds of them; a test compares the two."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import consistency, operators, resources, search
from .parts import Board

FOLDER: Final = Path(__file__).resolve().parents[2] / "charts" / "vectorindex" / "files" / "dashboards"
BOARDS: Final = (consistency.BOARD, search.BOARD, resources.BOARD, operators.BOARD)


def render(board: Board) -> str:
    """Return the file of a dashboard."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board.build()) + "\n"


def load(board: Board) -> dict[str, object]:
    """Return a dashboard as the file has it."""
    loaded: dict[str, object] = json.loads(render(board))
    return loaded


def write_files() -> None:
    """Write the chart's files anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(render(board), encoding="utf-8")
