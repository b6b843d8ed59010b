"""The errors of the indexer. Foreign errors are mapped to these once, where they come in, so that no other module knows them.

VectorIndexError
├── ConfigError        a file we were given is wrong; the message names file and field
├── SourceError        the source refused or did not answer; carries a `SourceReason`
├── NullSumError       Postgres gave no sum for rows it counted: the check can't conclude
├── LoadRefusedError   a load may not start now; carries a `ProofReason`
├── SnapshotError      a saved index was refused; carries a short reason
└── SearchError        a search request is wrong; carries the field
"""

from vectorindex_indexer.names import ProofReason, SourceReason


class VectorIndexError(Exception):
    """Any error that the indexer itself raises."""


class ConfigError(VectorIndexError):
    """A configuration file is missing, malformed or out of bounds. The message names the file and the field."""


class SourceError(VectorIndexError):
    """The source could not be read.

    `message` is fit for a status: it is worded by us and holds no secret and none of the server's free text.
    `retryable` says that the same call may succeed later without anybody changing the index or the table.
    """

    def __init__(self, reason: SourceReason, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class NullSumError(VectorIndexError):
    """Postgres counted rows but gave no sum for them; two missing sums must never be taken for equal ones."""


class LoadRefusedError(VectorIndexError):
    """Rows may not be loaded now: too little memory, or too many others load. `message` is fit for a status."""

    def __init__(self, reason: ProofReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SnapshotError(VectorIndexError):
    """A saved index was refused. `reason` is a short CamelCase word, such as `ChecksumMismatch`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SearchError(VectorIndexError):
    """A search request can't be answered as asked. `field` names the part of the request that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
