"""The one kind of failure that this package reports."""


class ClusterError(Exception):
    """Something cannot be done here; the message is one sentence that says what to do about it."""
