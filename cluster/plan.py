"""What a cluster's supervisor is told: written by the starter into the state folder, read by the supervisor and by `status`."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .components import Commands

FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The daemons of a cluster; a slot number makes it a whole node, None only a control plane on loopback."""

    slot: int | None
    server: str
    commands: Commands
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, state: Path) -> None:
        """Store the plan in the state folder of its cluster."""
        (state / FILE).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, state: Path) -> "Plan | None":
        """Return the plan in a state folder, None when there is none."""
        try:
            return cls(**json.loads((state / FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return None
