"""The command line's errors; each message says which object, and what to do. None holds a credential.

CliError
├── UsageError          what was asked for makes no sense for this index as it is
├── AccessError         no kubeconfig, no such context, or the API server refused
├── UnreachableError    the API server did not answer; worth another try
├── ConflictError       the object changed since it was read: read it again
└── WaitedError         what was waited for did not happen in time
"""


class CliError(Exception):
    """Base of all errors that people get to read as one sentence."""


class UsageError(CliError):
    """What was asked for makes no sense for this index as it is."""


class AccessError(CliError):
    """There is no way to the object: kubeconfig, rights, or the object itself are missing."""


class UnreachableError(CliError):
    """The API server did not answer, or only that it can't now."""


class ConflictError(CliError):
    """The object changed since it was read."""


class WaitedError(CliError):
    """What was waited for did not happen in time."""
