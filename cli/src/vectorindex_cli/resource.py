"""A VectorIndex as typed values, as far as people are shown it, and what its status amounts to. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from vectorindex_cli.errors import CliError
from vectorindex_cli.names import ConditionStatus, ConditionType

Json = dict[str, Any]


class _Part(Struct, frozen=True, rename="camel"):
    """Base of all parts. Fields that this version does not know are passed over."""


class Condition(_Part, frozen=True):
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str = ""


class Drift(_Part, frozen=True):
    """Differing rows by kind."""

    missing: int = 0
    ghost: int = 0
    changed: int = 0
    duplicate: int = 0

    @property
    def kinds(self) -> dict[str, int]:
        """The kinds of which there are any."""
        return {kind: rows for kind in self.__struct_fields__ if (rows := getattr(self, kind))}


class DriftSamples(_Part, frozen=True):
    """`status.members[].driftSamples`."""

    missing: list[str] = []
    ghost: list[str] = []
    changed: list[str] = []
    duplicate: list[str] = []


class Progress(_Part, frozen=True):
    """`status.members[].progress`."""

    generation: int
    rows_done: int = 0
    rows_expected: int = 0

    @property
    def share(self) -> float:
        """How much of the rows is there, 0 to 1."""
        return min(1.0, self.rows_done / self.rows_expected) if self.rows_expected else 0.0


class Repair(_Part, frozen=True):
    """One entry of `status.lastRepairs`."""

    pod: str
    at: str
    action: str
    trigger: str
    result: str
    drift: Drift = Drift()
    sample_ids: list[str] = []
    milliseconds: int = 0


class MemberPlan(_Part, frozen=True):
    """`status.members[].heldPlan`, as far as it is not in `status.heldPlans`."""

    id: str
    sample_ids: list[str] = []


class HeldPlan(_Part, frozen=True):
    """One entry of `status.heldPlans`."""

    id: str
    reason: str
    action: str
    removes: int
    replaces: int
    adds: int
    replicas: int
    held_at: str | None = None
    approved: bool = False


class Member(_Part, frozen=True):
    """One entry of `status.members`."""

    pod: str
    pod_uid: str
    state: str
    generation: int | None = None
    rows: int | None = None
    as_of: str | None = None
    proven_at: str | None = None
    result: str | None = None
    reason: str | None = None
    message: str | None = None
    drift: Drift | None = None
    drift_samples: DriftSamples = DriftSamples()
    progress: Progress | None = None
    quarantine: dict[str, int] = {}
    fallback: str | None = None
    held_plan: MemberPlan | None = None


class LastProven(_Part, frozen=True):
    """`status.lastProven`."""

    at: str


class Status(_Part, frozen=True):
    """`status`."""

    observed_generation: int = -1
    conditions: list[Condition] = []
    replicas: int = 0
    ready_replicas: int = 0
    source: str | None = None
    rows: int | None = None
    root_digest: str | None = None
    as_of: str | None = None
    drift: int | None = None
    validate_requested_at: str | None = None
    rebuild_requested_at: str | None = None
    held_plans: list[HeldPlan] = []
    approved_plans: list[str] = []
    last_proven: LastProven | None = None
    members: list[Member] = []
    last_repairs: list[Repair] = []

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of this type, if it is there."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class Consistency(_Part, frozen=True):
    """`spec.consistency`."""

    max_staleness_seconds: int = 300


class Healing(_Part, frozen=True):
    """`spec.healing`."""

    mode: str = "Auto"


class IndexPart(_Part, frozen=True):
    """`spec.index`."""

    dimension: int = 0
    metric: str = "Cosine"


class Spec(_Part, frozen=True):
    """`spec`."""

    index: IndexPart = IndexPart()
    replicas: int = 2
    suspend: bool = False
    consistency: Consistency = Consistency()
    healing: Healing = Healing()


class Metadata(_Part, frozen=True):
    """`metadata`."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int = 0
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None


class VectorIndex(_Part, frozen=True):
    """One resource."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    def __str__(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def arguments(self) -> str:
        """How commands name it."""
        return f"{self.metadata.name} -n {self.metadata.namespace}"


def parse_index(document: Mapping[str, Any]) -> VectorIndex:
    """Return the typed resource; raise CliError with the field when it does not fit."""
    try:
        return msgspec.convert(document, VectorIndex)
    except msgspec.ValidationError as error:
        raise CliError(f"the API server's VectorIndex is not of a kind that this version understands: {error}") from error


def parse_time(text: str | None) -> datetime | None:
    """Return the moment that an RFC 3339 text with offset names; None for any other text."""
    try:
        moment = msgspec.convert(text or "", datetime)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (msgspec.ValidationError, OverflowError):
        return None


class Verdict(Enum):
    """What the status amounts to; its value is the exit code."""

    CONSISTENT = 0
    DRIFT = 1
    UNKNOWN = 2


class Judgement(NamedTuple):
    """A verdict, and why it is not what the condition says, if so."""

    verdict: Verdict
    doubt: str = ""


def judge(index: VectorIndex, now: datetime) -> Judgement:
    """Return what the status amounts to. A status that speaks of another spec or of long ago proves nothing."""
    status = index.status
    consistent = status.condition(ConditionType.CONSISTENT)
    if consistent is None:
        return Judgement(Verdict.UNKNOWN, "no operator has looked at it yet: does one serve this namespace?")
    if status.observed_generation < index.metadata.generation:
        seen = f"the status speaks of generation {status.observed_generation}, the spec is at {index.metadata.generation}"
        return Judgement(Verdict.UNKNOWN, f"{seen}: is the operator running?")
    if consistent.status == ConditionStatus.FALSE:
        return Judgement(Verdict.DRIFT)
    if consistent.status != ConditionStatus.TRUE:
        return Judgement(Verdict.UNKNOWN)
    return _judge_age(index, now)


def _judge_age(index: VectorIndex, now: datetime) -> Judgement:
    """Doubt a status without a fresh proof: an operator that runs writes one at least once per half of `maxStalenessSeconds`."""
    limit = timedelta(seconds=2 * index.spec.consistency.max_staleness_seconds)
    told = [index.status.last_proven.at if index.status.last_proven else None, *(member.proven_at for member in index.status.members)]
    newest = max((moment for text in told if (moment := parse_time(text))), default=None)
    if newest is None or now - newest > limit:
        age = f"its newest proof is {format_age(now - newest)} old" if newest else "it holds no proof"
        return Judgement(Verdict.UNKNOWN, f"nobody keeps the status up to date, {age}: is the operator running?")
    return Judgement(Verdict.CONSISTENT)


def format_age(age: timedelta) -> str:
    """Return a span of time as kubectl writes it."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length, most in (("s", 1, 120), ("m", 60, 120), ("h", 3600, 48)):
        if seconds < length * most:
            return f"{seconds // length}{unit}"
    return f"{seconds // 86400}d"
