"""What both sides export: every sample once something has happened, for those who check what is asked for."""

import prometheus_client
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from tests.support.vector_index import NOW, make_index, make_observed, plan_of
from vectorindex_indexer.metrics import Metrics
from vectorindex_indexer.names import Result
from vectorindex_operator import metrics as operator_metrics
from vectorindex_operator import status

Exported = dict[str, dict[str, set[str]]]


def read_exported() -> Exported:
    """Return the name of every sample, its labels, and the values that they have: none where they come with events only."""
    found: Exported = {}
    for metric in vars(operator_metrics).values():
        if isinstance(metric, MetricWrapperBase):
            name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
            found[name] = {label: set() for label in metric._labelnames}
    for text in (render_replica(), render_operator()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def render_replica() -> str:
    """Return the metrics of a replica."""
    replica = Metrics("docs")
    replica.build("0.1.0", "1.15.1", "Flat", "Cosine")
    replica.answers_examined(Result.OK, 1.0)
    for code in (200, 503):
        replica.search_started()
        replica.search_finished(code, 0.001)
    replica.searched_together(1)
    replica.repaired("patch", "check", "repaired", {})
    replica.saved_index_loaded("absent")
    return replica.render().decode()


def render_operator() -> str:
    """Return the metrics of an operator that serves one VectorIndex."""
    observed = make_observed(make_index())
    operator_metrics.show_status(observed.index.key, status.render_status(observed, plan_of(observed), "", NOW))
    try:
        return prometheus_client.generate_latest().decode()
    finally:
        operator_metrics.forget(observed.index.key)
