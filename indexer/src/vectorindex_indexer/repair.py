"""Plans the narrowest repair of an index: which ids leave it, and which rows must be read and put in. Pure."""

from dataclasses import dataclass

import numpy as np

from vectorindex_indexer.compare import Drift
from vectorindex_indexer.ledger import Ids


@dataclass(frozen=True, eq=False)
class Patch:
    """A change of the index, row by row. An id in both is replaced."""

    remove: Ids  # ascending
    read: Ids  # ascending; rows to be read from the source and added

    @property
    def is_empty(self) -> bool:
        """Nothing to do."""
        return self.remove.size == 0 and self.read.size == 0


def plan_followed(affected: Ids) -> Patch:
    """Return the patch for rows that changed upstream, where the index is known to have equalled the ledger before."""
    return Patch(remove=affected, read=affected)


def plan_patch(difference: Drift) -> Patch:
    """Return the patch that makes an index equal to its ledger, given how it differs."""
    return Patch(
        remove=np.unique(np.concatenate([difference.ghost, difference.changed, difference.duplicate])),
        read=np.unique(np.concatenate([difference.missing, difference.changed, difference.duplicate])),
    )
