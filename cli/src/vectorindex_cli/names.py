"""Names that the operator has too; a contract test compares them."""

from enum import StrEnum
from typing import Final

API_GROUP: Final = "vectorindex.dev"
API_VERSION: Final = "vectorindex.dev/v1alpha1"
KIND: Final = "VectorIndex"
PLURAL: Final = "vectorindexes"

VALIDATE_REQUESTED_AT: Final = "vectorindex.dev/validate-requested-at"
REBUILD_REQUESTED_AT: Final = "vectorindex.dev/rebuild-requested-at"
APPROVE_PLAN: Final = "vectorindex.dev/approve-plan"

INDEX_LABEL: Final = "vectorindex.dev/index"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
OPERATOR_COMPONENT: Final = "operator"

SEARCH_PORT: Final = 8080
OPS_PORT: Final = 9090
STATUS_PATH: Final = "/v1/status"
METRICS_PATH: Final = "/metrics"

MOST_PLANS: Final = 20
"""Ids of plans that the operator reads in one annotation."""


class ConditionType(StrEnum):
    """What a condition of a VectorIndex is about."""

    READY = "Ready"
    CONSISTENT = "Consistent"
    SOURCE_AVAILABLE = "SourceAvailable"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"
