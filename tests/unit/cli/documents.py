"""VectorIndexes as a real API server and a real operator had them, and small ones made for one fact."""

import json
from datetime import UTC, datetime
from pathlib import Path

from vectorindex_cli.resource import Json, VectorIndex, parse_index

FOLDER = Path(__file__).resolve().parent / "documents"
STATES = ("healthy", "drifting", "unknown", "held")


def load_document(state: str) -> Json:
    """Return the resource as it was read."""
    document: Json = json.loads((FOLDER / f"{state}.json").read_text())
    return document


def load(state: str) -> VectorIndex:
    """Return the resource, typed."""
    return parse_index(load_document(state))


def read_at(state: str) -> datetime:
    """Return when it was read, at the API server."""
    return datetime.fromisoformat(
        (FOLDER / "read-at.json").read_text() and json.loads((FOLDER / "read-at.json").read_text())[state]
    ).astimezone(UTC)


def make(held: tuple[str, ...] = (), approved: tuple[str, ...] = (), used: tuple[str, ...] = (), annotation: str = "") -> VectorIndex:
    """Return an index with these plans."""
    plan = {"reason": "ChangeHeld", "action": "patch", "removes": 1, "replaces": 0, "adds": 0, "replicas": 2}
    return parse_index(
        {
            "metadata": {
                "name": "docs",
                "namespace": "search",
                "uid": "u",
                "resourceVersion": "7",
                "annotations": {"vectorindex.dev/approve-plan": annotation},
            },
            "status": {"heldPlans": [{"id": one, **plan, "approved": one in approved} for one in held], "approvedPlans": list(used)},
        }
    )
