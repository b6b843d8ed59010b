"""Dashboard Consistency: does every replica equal Postgres, who knows, and what was done about the rest."""

from typing import Final

from .parts import GREEN, ORANGE, PURPLE, RED, YELLOW, Board, Query, Row, State, choice, graph, note, number, timeline

ON: Final = "namespace, index, pod"
POD: Final = 'namespace=~"$namespace", index=~"$index", pod=~"$pod"'
NAMED: Final = 'namespace=~"$namespace", name=~"$index"'
REPLICA: Final = "{{namespace}}/{{pod}}"
INDEX: Final = "{{namespace}}/{{index}}"
RESOURCE: Final = "{{namespace}}/{{name}}"

INDEX_VARIABLES: Final = (
    choice("namespace", "Namespace", "label_values(vectorindex_check_result, namespace)"),
    choice("index", "Index", 'label_values(vectorindex_check_result{namespace=~"$namespace"}, index)'),
    choice("pod", "Replica", 'label_values(vectorindex_check_result{namespace=~"$namespace", index=~"$index"}, pod)'),
)


def of_replica(metric: str, matchers: str = "", by: str = ON) -> str:
    """Return a metric of the chosen replicas, once each however often it is scraped."""
    return f"max by ({by}) ({metric}{{{POD}{', ' if matchers else ''}{matchers}}})"


def per_second(metric: str, by: str) -> str:
    """Return what a counter of the chosen replicas gains a second."""
    return f"sum by ({by}) (rate({metric}{{{POD}}}[$__rate_interval]))"


def gained(metric: str, by: str) -> str:
    """Return what a counter of the chosen replicas gained within the last interval."""
    return f"sum by ({by}) (increase({metric}{{{POD}}}[$__rate_interval]))"


def counted(metric: str, by: str, selector: str = POD) -> str:
    """Return the same of a counter whose series come with their first event, which an increase alone would leave out."""
    series = f"{metric}{{{selector}}}"
    new = f"{series} unless last_over_time({series}[1h] offset $__rate_interval)"  # after a gap in scrapes nothing is new
    return f"sum by ({by}) (\n  increase({series}[$__rate_interval]) > 0\n  or ({new})\n  or 0 * {series}\n)"


def quantile(share: float, metric: str, by: str) -> str:
    """Return below which value that share of a histogram's observations was."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{POD}}}[$__rate_interval])))"


_LAST: Final = of_replica("vectorindex_last_conclusive_check_timestamp_seconds")
_STALENESS: Final = of_replica("vectorindex_max_staleness_seconds")
AGE: Final = f"time() - ({_LAST} > 0)"
"""Seconds since the last proof; nothing for a replica that never made one."""

OK, DRIFT, UNKNOWN = State(0, "ok", GREEN), State(1, "drift", RED), State(2, "unknown", PURPLE)


def _ended(result: str) -> str:
    matcher = f'result="{result}"'
    return f"({of_replica('vectorindex_check_result', matcher)} == 1)"


RESULT: Final = (
    f"0 * (time() - {_LAST} > {_STALENESS}) + {UNKNOWN.value}\n"
    f"or {UNKNOWN.value} * {_ended('unknown')}\n"
    f"or {DRIFT.value} * {_ended('drift')}\n"
    f"or {OK.value} * {_ended('ok')}"
)
"""What is known of each replica now: a proof that is older than maxStalenessSeconds counts no more than none."""

DRIFT_KNOWN: Final = (
    f"{of_replica('vectorindex_drift_rows', by=f'{ON}, kind')}\n"
    f"unless on ({ON}) {_ended('unknown')}\n"
    f"unless on ({ON}) (time() - {_LAST} > {_STALENESS})"
)
"""Rows that differ, of those replicas of which it is known."""

DRIFT_BY_KIND: Final = f"sum by ({ON}, kind) ({DRIFT_KNOWN}) > 0\nor on ({ON}) 0 * sum by ({ON}) ({DRIFT_KNOWN})"
"""The same with the kinds that occur, and 0 where none does."""

UNHEARD: Final = (
    f'(sum(max by (namespace, name) (vectorindex_operator_members{{{NAMED}, serving="true"}}))\n'
    f'> count(max by ({ON}) (vectorindex_check_result{{namespace=~"$namespace", index=~"$index", result="ok"}})))'
)
"""How many replicas serve, where some of them give no metrics and so nothing is known of them; of all, as the operator counts all."""

CHECKED: Final = f"and on ({ON}) ({_LAST} > 0)"
"""For numbers that are 0 until the first check: they are not known before."""


def condition(kind: str, selector: str = NAMED) -> str:
    """Return 1, 0 or 2 for a condition that is True, False or Unknown; True only where no operator says otherwise, while two take turns."""

    def has(status: str) -> str:
        return f'(max by (namespace, name) (vectorindex_operator_condition{{{selector}, type="{kind}", status="{status}"}}) == 1)'

    return f"0 * {has('False')}\nor 2 * {has('Unknown')}\nor 1 * {has('True')}"


CONDITION: Final = (State(1, "True", GREEN), State(0, "False", RED), State(2, "Unknown", PURPLE))
FIRING: Final = (State(1, "pending", YELLOW), State(2, "firing", RED))
ALERTS: Final = 'alertname=~"VectorIndex.+", namespace=~"$namespace"'

NOTE: Final = note(
    "Does every replica equal Postgres, and who says so? **ok**: proven by a check. **drift**: proven that it differs. "
    "**unknown**: nobody can tell, which is never shown as 0.",
    "VectorIndexNoConclusiveCheck",
    "VectorIndexCheckUnknown",
    "VectorIndexMetricsAbsent",
    "VectorIndexPeriodUnattainable",
    "VectorIndexDriftNotRepaired",
    "VectorIndexDriftRepaired",
    "VectorIndexRepairHeld",
    "VectorIndexReplicasDisagree",
    "VectorIndexSourceUnavailable",
)

TOP: Final = (
    number(
        "Consistent",
        "The condition Consistent of each VectorIndex: True when all serving replicas have proven equality recently.",
        "none",
        Query(condition("Consistent"), RESOURCE),
        states=CONDITION,
        nothing="No operator",
    ),
    number(
        "Replicas not proven",
        "Replicas that give metrics and whose last check did not end ok, or is older than maxStalenessSeconds.",
        "none",
        Query(f"count(({RESULT}) > 0)\nor 0 * count({_LAST})", "replicas"),
        (1, RED),
        nothing="No replica",
        runbook="VectorIndexNoConclusiveCheck",
    ),
    number(
        "Rows that differ",
        "Rows that differ from Postgres now, over all replicas; unknown as long as it is of one, or one that serves gives no metrics.",
        "locale",
        Query(f"sum({DRIFT_KNOWN})\nunless on () (count(({RESULT}) == {UNKNOWN.value}) > 0)\nunless on () {UNHEARD}", "rows"),
        (1, RED),
        nothing="Unknown",
        decimals=0,
        runbook="VectorIndexDriftNotRepaired",
    ),
    number(
        "Oldest proof",
        "Age of the oldest proof, as a share of maxStalenessSeconds; at 100 % it ceases to count. Nothing while a replica has none.",
        "percentunit",
        Query(f"max(({AGE}) / {_STALENESS})\nunless on () (count({_LAST} == 0) > 0)", "of what is allowed"),
        (0.5, YELLOW),
        (1, RED),
        nothing="None yet",
        decimals=0,
        runbook="VectorIndexNoConclusiveCheck",
    ),
    number(
        "Held plans",
        "Changes that wait until somebody approves them.",
        "none",
        Query(f"sum(max by (namespace, name) (vectorindex_operator_held_plans{{{NAMED}}}))", "plans"),
        (1, ORANGE),
        nothing="No operator",
        runbook="VectorIndexRepairHeld",
    ),
    number(
        "Live rows",
        "Live rows in Postgres, as the last check of any replica counted them.",
        "locale",
        Query(f"max by (namespace, index) ({of_replica('vectorindex_source_rows')} {CHECKED})", INDEX),
        nothing="Unknown",
        decimals=0,
    ),
)

STATES: Final = (
    timeline(
        "What is known of each replica",
        "Result of its last check; unknown also when that is older than maxStalenessSeconds. No bar where the replica gives no metrics.",
        (OK, DRIFT, UNKNOWN),
        Query(RESULT, REPLICA),
        nothing="No replica gives metrics",
        runbook="VectorIndexCheckUnknown",
    ),
    timeline(
        "Conditions",
        "Conditions of each VectorIndex, as the operator wrote them into its status.",
        CONDITION,
        *(Query(condition(kind), f"{RESOURCE} {kind}") for kind in ("Ready", "Consistent", "SourceAvailable")),
        span=12,
        height=11,
        nothing="No operator gives metrics",
        runbook="VectorIndexSourceUnavailable",
    ),
    timeline(
        "Alerts",
        "Alerts of the chart that are pending or firing. None at all, or Prometheus does not have the rules.",
        FIRING,
        Query(
            f'2 * (max by (alertname, namespace, index) (ALERTS{{{ALERTS}, alertstate="firing"}}) == 1)\n'
            f'or max by (alertname, namespace, index) (ALERTS{{{ALERTS}, alertstate="pending"}})',
            "{{alertname}} {{index}}",
        ),
        span=12,
        height=11,
        nothing="No alert",
    ),
)

PROOF: Final = (
    graph(
        "Time since the last proof",
        "Age of the last proof of each replica; nothing where there is none. Dashed: maxStalenessSeconds, after which it counts no more.",
        "s",
        Query(AGE, REPLICA),
        Query(f"max by (namespace, index) ({_STALENESS})", f"{INDEX} allowed"),
        dashed="allowed",
        nothing="No proof yet",
        runbook="VectorIndexNoConclusiveCheck",
    ),
    graph(
        "Rows in Postgres and in replicas",
        "Live rows as counted in Postgres, and vectors that searches can find. They differ by quarantined and pending rows, and by drift.",
        "locale",
        Query(f"max by (namespace, index) ({of_replica('vectorindex_source_rows')} {CHECKED})", f"{INDEX} in Postgres"),
        Query(f"{of_replica('vectorindex_vectors')} {CHECKED}", REPLICA),
        steps=True,
        from_zero=False,
        nothing="Not counted yet",
    ),
)

DRIFTING: Final = (
    graph(
        "Rows that differ, by kind",
        "Rows that differ from Postgres and are not repaired, by kind, of replicas whose state is known: a gap is unknown, not 0.",
        "locale",
        Query(DRIFT_BY_KIND, f"{REPLICA} {{{{kind}}}}"),
        steps=True,
        stacked=True,
        nothing="Unknown",
        runbook="VectorIndexDriftNotRepaired",
    ),
    graph(
        "Rows repaired",
        "Drifted rows that were repaired and compared again, by what was wrong with them, within the interval of the graph.",
        "locale",
        Query(gained("vectorindex_repaired_rows_total", "kind"), "{{kind}}"),
        steps=True,
        stacked=True,
        runbook="VectorIndexDriftRepaired",
    ),
    graph(
        "Repairs",
        "Repairs that ended, by what was done, what set it off and how it ended, within the interval of the graph.",
        "none",
        Query(counted("vectorindex_repairs_total", "action, trigger, result"), "{{action}} by {{trigger}}: {{result}}"),
        steps=True,
        stacked=True,
        nothing="No repair yet",
    ),
    graph(
        "Rows that wait",
        "Rows that changed in Postgres and may not be followed yet: the index is suspended, or the change is held.",
        "locale",
        Query(of_replica("vectorindex_pending_rows"), f"{REPLICA} pending"),
        Query(f"{of_replica('vectorindex_repair_held')} > 0", f"{REPLICA} held"),
        steps=True,
        runbook="VectorIndexRepairHeld",
    ),
)

FOLLOWED: Final = (
    graph(
        "Rows that followed Postgres",
        "Changes made upstream and followed by replicas: normal life, not drift. Each replica counts.",
        "suffix: rows/s",
        Query(per_second("vectorindex_synchronised_rows_total", "kind"), "{{kind}}"),
        stacked=True,
    ),
    graph(
        "Quarantined rows",
        "Live rows that the index leaves out because of their content, by reason. They are counted by checks and are not drift.",
        "locale",
        Query(f"{of_replica('vectorindex_quarantined_rows', by=f'{ON}, reason')} > 0", f"{REPLICA} {{{{reason}}}}"),
        steps=True,
        nothing="None",
    ),
)

CHECKS: Final = (
    graph(
        "Checks by result",
        "Checks finished, by layer (L0 source and ledger, L1 ledger and FAISS, L2 sampled answers) and result.",
        "cps",
        Query(f"{per_second('vectorindex_checks_total', 'layer, result')} > 0", "{{layer}} {{result}}"),
        stacked=True,
        nothing="No check",
        runbook="VectorIndexCheckUnknown",
    ),
    graph(
        "Duration of checks",
        "Duration of a check, with its repair if it made one: half of them are faster than p50, 99 of 100 faster than p99.",
        "s",
        Query(quantile(0.5, "vectorindex_check_duration_seconds", "index"), "{{index}} p50"),
        Query(quantile(0.99, "vectorindex_check_duration_seconds", "index"), "{{index}} p99"),
        nothing="No check",
    ),
    graph(
        "Period of checks",
        "Time between two checks: what can be kept within maxSourceDutyPercent, and (dashed) what is asked for.",
        "s",
        Query(f"{of_replica('vectorindex_attainable_period_seconds')} {CHECKED}", f"{REPLICA} attainable"),
        Query(f"max by (namespace, index) ({of_replica('vectorindex_check_period_seconds')} > 0)", f"{INDEX} asked for"),
        dashed="asked for",
        runbook="VectorIndexPeriodUnattainable",
    ),
    graph(
        "Load on Postgres",
        "Share of the time for which checks of each replica keep Postgres busy; maxSourceDutyPercent limits it.",
        "percentunit",
        Query(per_second("vectorindex_source_busy_seconds_total", ON), REPLICA),
    ),
    graph(
        "Age of the oldest comparison by content",
        "Time since the bucket was compared by content that was not for longest; nothing until all of them were, once in each process.",
        "s",
        Query(f"time() - ({of_replica('vectorindex_oldest_bucket_compared_timestamp_seconds')} > 0)", REPLICA),
        span=24,
        nothing="Not all were yet",
    ),
)

BOARD: Final = Board(
    "consistency",
    "Consistency",
    "Whether every replica equals Postgres, how old the proof is, and what was repaired.",
    INDEX_VARIABLES,
    (
        Row("", (NOTE, *TOP)),
        Row("State", STATES),
        Row("Proof", PROOF),
        Row("Drift and repair", DRIFTING),
        Row("Followed and left out", FOLLOWED),
        Row("Checks", CHECKS),
    ),
    ALERTS,
)
