"""The operator's errors.

OperatorError
├── SettingsError      an environment variable is missing or wrong; fatal at start
├── SpecError          a VectorIndex as stored can't be understood
├── ReportError        a pod's answer is missing, too large, of another pod, or not as agreed
├── PayloadError       what was posted to the webhook is no payload of Alertmanager
└── ClusterError       the API server refused or did not answer
    ├── ConflictError  the object changed or exists in the meantime: look again
    ├── NotFoundError  it is not there (any more)
    ├── RejectedError  it will be refused again until something else changes: invalid, forbidden, over quota
    └── LeadershipLostError  not even sent: another operator may act by now
"""


class OperatorError(Exception):
    """Base of all errors raised by the operator itself."""


class SettingsError(OperatorError):
    """An environment variable is missing or wrong; the message names it."""


class SpecError(OperatorError):
    """A VectorIndex as stored can't be understood; the message names the field."""


class ReportError(OperatorError):
    """A pod gave no usable answer. The message holds nothing that the pod said."""


class PayloadError(OperatorError):
    """What was posted to the webhook is no payload of Alertmanager. The message holds at most a field's name and what it should be."""


class ClusterError(OperatorError):
    """A request to the API server failed; worth another try."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ConflictError(ClusterError):
    """The object changed or came into being since it was read."""


class NotFoundError(ClusterError):
    """The object does not exist."""


class RejectedError(ClusterError):
    """The API server understood the request and refuses it."""


class LeadershipLostError(ClusterError):
    """Another operator may act by now: what was to be written was not sent."""
