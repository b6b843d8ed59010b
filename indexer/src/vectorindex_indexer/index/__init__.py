"""FAISS: views that are searched, and how they are built, changed, sealed and examined. Knows nothing of Postgres, files or time.

encoding → codec → stores → parts → searching → view → building, sealing, answers
"""

from vectorindex_indexer.index.answers import Answers, examine_answers
from vectorindex_indexer.index.building import Builder
from vectorindex_indexer.index.encoding import Floats, Words, code_digests, encode
from vectorindex_indexer.index.parts import SealedPart
from vectorindex_indexer.index.sealing import Seal, needs_merge, plan_seal
from vectorindex_indexer.index.threads import threads_from_cgroup
from vectorindex_indexer.index.view import TOO_FEW_ROWS, View, empty_view

__all__ = [
    "TOO_FEW_ROWS",
    "Answers",
    "Builder",
    "Floats",
    "Seal",
    "SealedPart",
    "View",
    "Words",
    "code_digests",
    "empty_view",
    "encode",
    "examine_answers",
    "needs_merge",
    "plan_seal",
    "threads_from_cgroup",
]
