"""The saved index: a view and its ledger on disk, replaced as a whole or not at all, and trusted only after every byte was verified.

    folder/manifest.json                       written last; names every other file with size and sha256, and carries its own checksum
    folder/segment-<token>-<part>-<n>.bin      ids, codes, graph or lists of one segment; never changes, so it is written once
    folder/<what>-<sha256>.bin                 everything that changes: dead marks, delta, ledger arrays; a new state has new names
    folder/.partial-*                          being written; worthless after a crash

Names of data files are never reused for other content, so the old manifest stays true until the new one replaces it. What a
loaded index says about Postgres is for others to prove: right checksums only tell that the bytes are those that were saved.
"""

from vectorindex_indexer.snapshot.loading import Expected, Saved, load, read_state
from vectorindex_indexer.snapshot.manifest import MANIFEST, SavedAsOf, SavedMeta
from vectorindex_indexer.snapshot.saving import discard_partial, save

__all__ = ["MANIFEST", "Expected", "Saved", "SavedAsOf", "SavedMeta", "discard_partial", "load", "read_state", "save"]
