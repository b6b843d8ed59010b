"""Break a promise on purpose, and see a named test fail: `make break` does it for each entry below.

Each entry takes one thing out of a copy of the indexer, the operator, the command line or the chart and runs the tests that guard it. A
break that no test notices is an error, and so is an entry that no longer fits the code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INDEXER = ROOT / "indexer" / "src" / "vectorindex_indexer"
OPERATOR = ROOT / "operator" / "src" / "vectorindex_operator"
CLI = ROOT / "cli" / "src" / "vectorindex_cli"
CHART = ROOT / "charts" / "vectorindex"
SOURCE_TESTS = "tests/integration/indexer/test_source.py"
CYCLE_TESTS = "tests/integration/indexer/test_cycle.py"
BLINDNESS_TESTS = "tests/integration/indexer/test_blindness.py"
GUARD_TESTS = "tests/integration/indexer/test_guards.py"
REPLICA_TESTS = "tests/integration/indexer/test_replica.py"
LEASE_TESTS = "tests/integration/operator/test_lease.py"
SUPERVISION_TESTS = "tests/integration/operator/test_supervision.py"
API_FAULT_TESTS = "tests/integration/operator/test_api_faults.py"
WEBHOOK_TESTS = "tests/integration/operator/test_webhook.py"
HEAL_TESTS = "tests/unit/operator/test_heal.py"
CHART_LIFECYCLE_TESTS = "tests/integration/operator/test_chart_lifecycle.py"
HANDLER_TESTS = "tests/unit/operator/test_handlers.py"
DIGEST_COLUMN_TESTS = "tests/integration/indexer/test_digest_columns.py"


@dataclass(frozen=True)
class Break:
    """One promise broken: in `file`, `old` becomes `new`; `tests` (a pytest path with an expression) must then fail."""

    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, str]
    package: Path = INDEXER


BREAKS = (
    Break(
        "dead rows are no live rows (the tombstone clause)",
        "predicate.py",
        "        tombstone = self._spec.tombstone\n        if tombstone is None:\n            return sa.true()\n        if isinstance",
        "        tombstone = self._spec.tombstone\n        return sa.true()\n        if isinstance",
        (CYCLE_TESTS, "loaded_index_holds_exactly"),
    ),
    Break(
        "rows of another model are no live rows (the model filter)",
        "predicate.py",
        "        return self.table.c[self._spec.model_column] == sa.literal(self._spec.model, sa.Text)",
        "        return sa.true()",
        (CYCLE_TESTS, "loaded_index_holds_exactly"),
    ),
    Break(
        "every reader goes through the predicate (the load goes round it)",
        "source.py",
        "        live = self._live.relation(within)\n        query = sa.select(self._keys.whole(live.c.id), live.c.stamp, live.c.vector)",
        "        live = _around(self._live, within)\n        query = sa.select(self._keys.whole(live.c.id), live.c.stamp, live.c.vector)",
        (SOURCE_TESTS, "tombstone_rule"),
    ),
    Break(
        "tables are locked before the snapshot",
        "source.py",
        '    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE")',
        '    connection.execute(sql.SQL("SELECT 1 -- {}")',
        (SOURCE_TESTS, "truncate or after_the_locks"),
    ),
    Break(
        "one unit of work is one snapshot",
        "source.py",
        "    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ\n",
        "",
        (SOURCE_TESTS, "one_moment"),
    ),
    Break(
        "the positive control through SQL",
        "cycle.py",
        "        if without + sum_digests(rows.digests) != sum_digests(bucket.digests[start:end]):",
        "        if False:",
        (BLINDNESS_TESTS, "ignores and bigint"),
    ),
    Break(
        "the positive control of the comparison",
        "cycle.py",
        "        check_comparer(seals, totals, moved)\n",
        "",
        (BLINDNESS_TESTS, "sums and sees and bigint"),
    ),
    Break(
        "zero rows where there were some are unknown",
        "controls.py",
        "    if survey.live == 0 and max(",
        "    if False and max(",
        (BLINDNESS_TESTS, "(zero and bigint) or without_memory"),
    ),
    Break(
        "a model key that matches nothing is unknown",
        "controls.py",
        "    if spec.model is not None and survey.matching == 0 and survey.total_any:",
        "    if False:",
        (BLINDNESS_TESTS, "wrong_model_key or (matches and bigint)"),
    ),
    Break(
        "a bucket that broke its seal is the replica's own loss",
        "cycle.py",
        "        self.broken = belief.ledger.find_broken()",
        "        self.broken = frozenset[int]()",
        (REPLICA_TESTS, "wrong_saved_index_is_never_served"),
    ),
    Break(
        "the content sweep",
        "cycle.py",
        "        return find_due(self.ledger, self.terms, range(self.start, self.end), totals.digests is not None)",
        "        return set[int]()",
        (CYCLE_TESTS, "due_bucket_is_compared or changed_under_a_new_seal"),
    ),
    Break(
        "FAISS is compared with the ledger",
        "cycle.py",
        "            return compare.compare_index(*wanted, *actual)\n",
        "            return Drift()\n",
        (CYCLE_TESTS, "planted_fault and (index or duplicate or swapped or codes)"),
    ),
    Break(
        "a repair counts only after a second comparison",
        "cycle.py",
        "        if left.rows:\n",
        "        if False:\n",
        (CYCLE_TESTS, "does_not_take"),
    ),
    Break(
        "large changes are held (the blast radius)",
        "guards.py",
        "    return max(change.removes.size, missing) + change.replaces.size > count_allowed(limits, most)",
        "    return False",
        ("tests/unit/indexer/test_guards.py", "too_large"),
    ),
    Break(
        "little by little is as much as at once",
        "guards.py",
        "    most = max(limits.most_rows, rows)\n",
        "    most = rows\n",
        ("tests/unit/indexer/test_guards.py", "too_large"),
    ),
    Break(
        "a server that lost rows is not followed",
        "cycle.py",
        "        if regressed and change.removes.size:\n",
        "        if False:\n",
        (GUARD_TESTS, "lacks_one_row"),
    ),
    Break(
        "an approval counts once",
        "holds.py",
        "        return frozenset(behaviour.wishes.approved_plans) - frozenset(self.carried_out)",
        "        return frozenset(behaviour.wishes.approved_plans)",
        ("tests/integration/indexer/test_replica_held.py", "counts_once"),
    ),
    Break(
        "damage to a row that waits is seen (the pending list)",
        "cycle.py",
        "        unlike = compare.find_unlike(pending.shown, (actual[0][held], actual[1][held]))",
        "        unlike = NO_IDS",
        (GUARD_TESTS, "damage_to_a_row_that_waits"),
    ),
    Break(
        "a check in groups looks at every bucket (the cursor skips one)",
        "cycle.py",
        "    start = min(belief.ledger.position_of(belief.cursor), buckets - 1)",
        "    start = min(belief.ledger.position_of(belief.cursor) + (belief.cursor is not None), buckets - 1)",
        (GUARD_TESTS, "ends_like_a_short_one"),
    ),
    Break(
        "a check in groups shows the moment of its first group (that of its last)",
        "cycle.py",
        "            return replace(after, as_of=begun, latest=latest, root=root)",
        "            return replace(after, as_of=as_of, latest=latest, root=root)",
        (GUARD_TESTS, "moment_of_its_first_group"),
    ),
    Break(
        "FAISS is compared with the ledger slice by slice, where it is large",
        "cycle.py",
        "        return (set(range(self.start, self.end)) if everything else due) - self.broken",
        "        return (set(range(self.start, self.end)) if everything else set[int]()) - self.broken",
        (CYCLE_TESTS, "slice_of_a_large_index"),
    ),
    Break(
        "a flipped bit in an id breaks the seal",
        "ledger.py",
        "        return Seal(self.rows, sum_ids(self.ids), ",
        "        return Seal(self.rows, 0, ",
        ("tests/unit/indexer/test_ledger.py", "flipped_bit"),
    ),
    Break(
        "ids that are too long are kept out",
        "wire.py",
        "        if self._kind is IdKind.TEXT and len(row.id) > LONGEST_ID_BYTES:\n            return QuarantineReason.ID_TOO_LONG\n",
        "",
        ("tests/unit/indexer/test_wire.py", "too_long"),
    ),
    Break(
        "a sum that is NULL is no sum",
        "source.py",
        "    if count != summed or (count and total is None):",
        "    if count != summed:",
        (BLINDNESS_TESTS, "NULL and bigint"),
    ),
    Break(
        "what a snapshot older than the last one shows is not followed",
        "controls.py",
        "    if as_of.incarnation == incarnation and snapshot_end(as_of.snapshot) < snapshot_end(snapshot):",
        "    if False:",
        (BLINDNESS_TESTS, "lags and bigint"),
    ),
    Break(
        "the positive control of the comparison by content",
        "cycle.py",
        "        check_content_comparer(ours, sums, unlike)\n",
        "",
        (BLINDNESS_TESTS, "content and sees and bigint"),
    ),
    Break(
        "the positive control of the comparison with FAISS",
        "cycle.py",
        "        check_index_comparer(self.ledger.buckets[position] for position in sorted(positions))\n",
        "",
        (BLINDNESS_TESTS, "index and sees and bigint"),
    ),
    Break(
        "half-written files are gone after a restart",
        "replica.py",
        "        snapshot.discard_partial(self.settings.data)",
        "        pass",
        (REPLICA_TESTS, "half_written"),
    ),
    Break(
        "digests of another kind are not compared",
        "controls.py",
        "    if belief.digest_spec != unit.digest_spec:",
        "    if False:",
        (BLINDNESS_TESTS, "kind and bigint"),
    ),
    Break(
        "a rebuild answers only wishes that came before it",
        "replica.py",
        "Rebuild(candidate, trigger, started, started_at)",
        "Rebuild(candidate, trigger, started, datetime.now(UTC))",
        (REPLICA_TESTS, "counts_from_before"),
    ),
    Break(
        "digests sum up, they don't cancel",
        "digest.py",
        "(self.high + other.high) % _MODULUS, (self.low + other.low) % _MODULUS",
        "self.high ^ other.high, self.low ^ other.low",
        ("tests/unit/indexer/test_digest.py", "inverse or twice"),
    ),
    Break(
        "stored digests are not believed where the bytes beside them say other",
        "controls.py",
        "    if any(stored[place] != digest for place, digest in hashed.items()):",
        "    if False:",
        (DIGEST_COLUMN_TESTS, "lie or beside_which"),
    ),
    Break(
        "rows without a stored digest are no sum",
        "source.py",
        "    if count != stored:\n",
        "    if False:\n",
        (DIGEST_COLUMN_TESTS, "never_a_sum"),
    ),
    Break(
        "digest columns are kept up to date by Postgres itself",
        "stored.py",
        '    if column.generated != "s":',
        "    if False:",
        (DIGEST_COLUMN_TESTS, "no_digest_column"),
    ),
    Break(
        "digests are added up range by range only in an index that holds them",
        "stored.py",
        "    AND %(first)s = ANY(i.indkey) AND %(second)s = ANY(i.indkey)\n",
        "",
        (DIGEST_COLUMN_TESTS, "without_the_index"),
    ),
    Break(
        "every printed name is quoted",
        "ddl.py",
        """    return '"' + name.replace('"', '""') + '"'""",
        "    return name",
        ("tests/unit/indexer/test_ddl.py", "quoted"),
    ),
    Break(
        "a deadline closes the socket",
        "deadline.py",
        "                    self._socket.shutdown(socket.SHUT_RDWR)",
        "                    pass",
        (SOURCE_TESTS, "frozen_backend"),
    ),
    Break(
        "a connection that never came about is closed",
        "connect.py",
        "            traceback.clear_frames(error.__traceback__)",
        "            pass",
        ("tests/integration/indexer/test_faults.py", "came_about"),
    ),
    Break(
        "VerifyFull looks at the host name",
        "connect.py",
        'SslMode.VERIFY_FULL: "verify-full"',
        'SslMode.VERIFY_FULL: "verify-ca"',
        ("tests/integration/indexer/test_tls.py", "another_host_name"),
    ),
    Break(
        "our key may have any mode",
        "tls.py",
        "        os.fchmod(descriptor, 0o600)\n",
        "        os.fchmod(descriptor, 0o644)\n",
        ("tests/integration/indexer/test_tls.py", "whatever_the_mode"),
    ),
    Break(
        "a slot ends with a holder that hangs",
        "slots.py",
        '        "idle_in_transaction_session_timeout": int(1000 * beat_seconds * _MISSED_BEATS),\n',
        "",
        ("tests/integration/indexer/test_slots.py", "hanging_holder"),
    ),
    Break(
        "a slot stays with a holder that lives",
        "slots.py",
        '                self._connection.execute("SELECT")',
        "                pass",
        ("tests/integration/indexer/test_slots.py", "hanging_holder"),
    ),
    Break(
        "no write passes a shut fence",
        "cluster.py",
        '        if method != "GET" and not _is_lease(path) and not self._fence.may_write():',
        "        if False:",
        (LEASE_TESTS, "connection_stands"),
        OPERATOR,
    ),
    Break(
        "the fence is asked again once the connection stands",
        "cluster.py",
        "            self._check(req.method, req.url.path)",
        "            pass",
        (LEASE_TESTS, "connection_stands"),
        OPERATOR,
    ),
    Break(
        "a lease is taken only after it stood still",
        "lease.py",
        "        return self._fence.clock() - self._seen_at >= lasts",
        "        return True",
        (LEASE_TESTS, "stood_still"),
        OPERATOR,
    ),
    Break(
        "the fence counts from before the renewal",
        "lease.py",
        "        self._fence.open_until(started + ",
        "        self._fence.open_until(self._fence.clock() + ",
        (LEASE_TESTS, "counted_from_before"),
        OPERATOR,
    ),
    Break(
        "a deleted lease is waited for",
        "lease.py",
        "            if first and lease is None:",
        "            if lease is None:",
        (LEASE_TESTS, "invitation"),
        OPERATOR,
    ),
    Break(
        "a leader told to end releases its lease",
        "app.py",
        "            await election.release()",
        "            pass",
        ("tests/integration/operator/test_availability.py", "told_to_end"),
        OPERATOR,
    ),
    Break(
        "a stream that ended quietly begins anew",
        "supervisor.py",
        "                elif time.monotonic() - missing_since > ",
        "                elif time.monotonic() - missing_since > 1e9 + ",
        (SUPERVISION_TESTS, "without_a_word"),
        OPERATOR,
    ),
    Break(
        "whatever hangs, the process ends",
        "__main__.py",
        "    _end_within(END_LIMIT, STUCK)\n",
        "",
        (SUPERVISION_TESTS, "blocked_event_loop"),
        OPERATOR,
    ),
    Break(
        "a login counts as new each time",
        "handlers.py",
        "    return replace(found, expiration=datetime.datetime.now(datetime.UTC) + LOGIN_LIFE)",
        "    return found",
        (HANDLER_TESTS, "equal_credentials"),
        OPERATOR,
    ),
    Break(
        "the watches never give up",
        "handlers.py",
        "        while True:\n            yield pause",
        "        for _ in range(8):\n            yield pause",
        (HANDLER_TESTS, "tries_never_end"),
        OPERATOR,
    ),
    Break(
        "nothing left out makes the operator serve all namespaces",
        "settings.py",
        '_required(environment, name).split(",")',
        '(environment.get(name, "").strip() or EVERYWHERE).split(",")',
        ("tests/unit/operator/test_settings.py", "only_when_that_is_said"),
        OPERATOR,
    ),
    Break(
        "text of any script reaches the status (escapes are left out of what is applied)",
        "cluster.py",
        "body = json.dumps(body, ensure_ascii=False).encode()",
        "body = json.dumps(body).encode()",
        ("tests/integration/operator/test_schema_sweep.py", "sample"),
        OPERATOR,
    ),
    Break(
        "a transition time moves with the status of its condition alone",
        "status.py",
        "since = before.last_transition_time if before and before.status == verdict.status else",
        "since = before.last_transition_time if before and before.reason == verdict.reason else",
        ("tests/unit/operator/test_status_properties.py", "times_of_transition"),
        OPERATOR,
    ),
    Break(
        "metrics say what the status says",
        "metrics.py",
        "sum(not plan.approved for plan in status.held_plans)",
        "len(status.held_plans)",
        ("tests/unit/operator/test_status_properties.py", "metrics_say"),
        OPERATOR,
    ),
    Break(
        "an upgrade restarts nobody's pods",
        "objects.py",
        '"terminationGracePeriodSeconds": 45',
        '"terminationGracePeriodSeconds": 46',
        ("tests/unit/operator/test_objects.py", "old_resource"),
        OPERATOR,
    ),
    Break(
        "a replica ends when it is told to while it still loads its modules",
        "entry.py",
        "    signal.signal(signal.SIGTERM, _leave)\n",
        "",
        ("tests/unit/indexer/test_entry.py", "told_to_end"),
    ),
    Break(
        "a pause that the API server asks for is kept",
        "cluster.py",
        '            self._pause.begin(response.headers.get("Retry-After", ""))',
        "            pass",
        (API_FAULT_TESTS, "pause_that"),
        OPERATOR,
    ),
    Break(
        "a look that came further waits as after its first failure",
        "reconcile.py",
        "        memory.failures = 1 if has_come_further else memory.failures + 1",
        "        memory.failures += 1",
        (API_FAULT_TESTS, "second_write"),
        OPERATOR,
    ),
    Break(
        "nothing comes back of an index that only an old list shows",
        "reconcile.py",
        "        return index.status.observed_generation >= 0",
        "        return False",
        (API_FAULT_TESTS, "past_change_nothing and resource"),
        OPERATOR,
    ),
    Break(
        "an old list undoes nothing",
        "reconcile.py",
        '        if body is None or body["metadata"]["resourceVersion"] != index.resource_version:',
        "        if body is None:",
        (API_FAULT_TESTS, "past_change_nothing and resource"),
        OPERATOR,
    ),
    Break(
        "each list of the watches is followed by one of ours",
        "app.py",
        '            if event["type"] is None:',
        "            if False:",
        (API_FAULT_TESTS, "goes_between"),
        OPERATOR,
    ),
    Break(
        "watches that go on failing begin anew once a second",
        "handlers.py",
        "    settings.watching.reconnect_backoff = 1 ",
        "    settings.watching.reconnect_backoff = 0.1 ",
        (API_FAULT_TESTS, "hot_loop and stream"),
        OPERATOR,
    ),
    Break(
        "an alert that was heard is heard no second time",
        "heal.py",
        "    if any(told is not None and call.since <= told for told in (standing.wish, standing.echo)):",
        "    if False:",
        (HEAL_TESTS, "moves_forward"),
        OPERATOR,
    ),
    Break(
        "two alerts too soon after each other are one wish",
        "heal.py",
        "    if any(told is not None and now - min(told, now) < rules.cooldown for told in (standing.wish, standing.set_at)):",
        "    if False:",
        (HEAL_TESTS, "moves_forward"),
        OPERATOR,
    ),
    Break(
        "an alert of tomorrow is not heard",
        "heal.py",
        "    if since is None or not now - OLDEST <= since <= now + AHEAD:",
        "    if since is None:",
        (HEAL_TESTS, "asks_for_nothing"),
        OPERATOR,
    ),
    Break(
        "without the token nothing is heard",
        "webhook.py",
        '        if not same or scheme.lower() != "bearer":',
        '        if scheme.lower() != "bearer":',
        (WEBHOOK_TESTS, "without_the_token"),
        OPERATOR,
    ),
    Break(
        "a wish that could not be stored takes nothing from the budget",
        "webhook.py",
        "            if paid and not stored:",
        "            if False:",
        (WEBHOOK_TESTS, "takes_nothing_from"),
        OPERATOR,
    ),
    Break(
        "a renewed certificate without its key leaves the former in use",
        "webhook.py",
        "            _load_tls(folder)  # apart",
        "            pass  # apart",
        (WEBHOOK_TESTS, "tls_is_spoken"),
        OPERATOR,
    ),
    Break(
        "a wish is written only to what is still as it was read",
        "cluster.py",
        '        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "annotations": {name: value}}}',
        '        body = {"metadata": {"uid": meta["uid"], "annotations": {name: value}}}',
        (WEBHOOK_TESTS, "write_once"),
        OPERATOR,
    ),
    Break(
        "what could not be stored is not called heard",
        "webhook.py",
        "status=503 if outcomes[HealOutcome.FAILED] else 200",
        "status=200",
        (WEBHOOK_TESTS, "not_be_stored and patch"),
        OPERATOR,
    ),
    Break(
        "lists are made one after the other",
        "resync.py",
        "                async with self._one_at_a_time:\n                    claims",
        "                if True:\n                    claims",
        ("tests/unit/operator/test_resync.py", "same_time"),
        OPERATOR,
    ),
    Break(
        "that replicas disagree is told, and nothing else as that",
        "metrics.py",
        "consistent.reason == Reason.REPLICAS_DISAGREE",
        "consistent.reason != Reason.REPLICAS_DISAGREE",
        ("tests/unit/operator/test_status.py", "metric_of_its_own"),
        OPERATOR,
    ),
    Break(
        "alerts ask for metrics that exist (one is renamed)",
        "metrics.py",
        "vectorindex_operator_blind_watches",
        "vectorindex_operator_lost_watches",
        ("tests/contract/test_alerts.py", "ask_only_for_what_is_exported"),
        OPERATOR,
    ),
    Break(
        "kubectl vectorindex: a status that nobody keeps up to date is not told as consistent",
        "resource.py",
        "    if newest is None or now - newest > limit:",
        "    if newest is None:",
        ("tests/unit/cli/test_render.py", "an_old_proof"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: a status of an earlier spec proves nothing of this one",
        "resource.py",
        "    if status.observed_generation < index.metadata.generation:",
        "    if False:",
        ("tests/unit/cli/test_render.py", "earlier_spec"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: an approval takes no earlier one back",
        "wishes.py",
        "    every = tuple(dict.fromkeys([*kept, *named]))",
        "    every = tuple(named)",
        ("tests/unit/cli/test_wishes.py", "keeps_what_is_approved"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: two approvals at one time both count",
        "wishes.py",
        '    return {"metadata": metadata | ({"resourceVersion": resource_version} if resource_version else {})}',
        '    return {"metadata": metadata}',
        ("tests/integration/cli/test_cli.py", "two_approvals"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: a plan that was used up is approved anew only once the operator has forgotten it",
        "commands.py",
        "        if approval.used_up:",
        "        if not approval:",
        ("tests/integration/cli/test_cli.py", "again_when_it_is_held_again"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: text of rows does not steer a terminal",
        "render.py",
        '    return "".join(sign if sign.isprintable() else "?" for sign in text)',
        "    return text",
        ("tests/unit/cli/test_render.py", "steers_the_terminal"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: a support bundle holds no password",
        "redact.py",
        "    for pattern, replacement in _PATTERNS:",
        "    for pattern, replacement in ():",
        ("tests/integration/cli/test_cli.py", "bundle_holds_what_is_there"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: a support bundle holds no value of an environment variable",
        "redact.py",
        '    if key in ("env", "httpHeaders") and isinstance(part, list):',
        "    if False:",
        ("tests/integration/cli/test_cli.py", "bundle_holds_what_is_there"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: that no row differs is only said where it is proven",
        "render.py",
        "    elif judgement.verdict is Verdict.CONSISTENT:",
        "    else:",
        ("tests/unit/cli/test_render.py", "only_where_that_is_proven"),
        CLI,
    ),
    Break(
        "kubectl vectorindex: a rebuild is not shown as whole before it is proven",
        "progress.py",
        "min(99, int(100 * share))",
        "int(100 * share)",
        ("tests/unit/cli/test_progress.py", "counts_rows_of_all"),
        CLI,
    ),
    Break(
        "progress of a build is not written more often than it is worth",
        "status.py",
        "    return STEP_REST if is_far else PROGRESS_REST",
        "    return STEP_REST",
        ("tests/unit/operator/test_status.py", "bounded_rate"),
        OPERATOR,
    ),
    Break(
        "progress is told only while an index is built",
        "replica.py",
        "            self._progress = NO_PROGRESS\n",
        "            pass\n",
        (REPLICA_TESTS, "wished_for_now"),
    ),
    Break(
        "helm uninstall keeps the definition, and so the indexes",
        "templates/crd.yaml",
        '"helm.sh/resource-policy" "keep"',
        '"helm.sh/resource-policy" "none"',
        (CHART_LIFECYCLE_TESTS, "uninstall_keeps"),
        CHART,
    ),
    Break(
        "an upgrade of the chart changes what is there in place (the operator's selector)",
        "templates/_helpers.tpl",
        "app.kubernetes.io/component: operator\n",
        "app.kubernetes.io/component: controller\n",
        (CHART_LIFECYCLE_TESTS, "in_place"),
        CHART,
    ),
    Break(
        "names of Services are short enough for an API server",
        "templates/_helpers.tpl",
        "trunc 55",
        "trunc 63",
        (CHART_LIFECYCLE_TESTS, "make_together"),
        CHART,
    ),
    Break(
        "labels of everybody's choice leave those alone by which pods are selected",
        "templates/_helpers.tpl",
        "{{- if not (hasKey (fromYaml $own) $key) }}",
        "{{- if true }}",
        (CHART_LIFECYCLE_TESTS, "make_together"),
        CHART,
    ),
    Break(
        "without ports of the API server the operator may not reach every port",
        "values.schema.json",
        '"apiServerPorts"\n      ],',
        '"enabled"\n      ],',
        ("tests/contract/test_chart_values.py", "refused_with_a_sentence"),
        CHART,
    ),
    Break(
        "ServiceMonitors give the labels of PodMonitors",
        "templates/monitors.yaml",
        '(list (dict "action" "labeldrop" "regex" "service") $job)',
        "(list $job)",
        ("tests/contract/test_monitors.py", "same_labels"),
        CHART,
    ),
    Break(
        "helm test insists on a proven answer",
        "files/helm_test.py",
        '    if not answer["proven"]:\n',
        "    if False:\n",
        ("tests/contract/test_helm_test.py", "without_a_proof"),
        CHART,
    ),
)

AROUND = """

def _around(live: Any, within: Any) -> sa.Subquery:
    vector = live.table.c[live._spec.vector_column]
    return sa.select(
        live.id.label("key"), live.id.label("id"), vector.label("vector"), sa.literal(1, sa.BigInteger).label("stamp")
    ).where(live.key, within(live.id)).subquery("live")
"""


def run(one: Break) -> str:
    """Return the first test that failed, "" if none did. Raise LookupError when the entry does not fit the code."""
    text = (one.package / one.file).read_text(encoding="utf-8")
    if text.count(one.old) != 1:
        raise LookupError(f"{one.file} holds the text to be replaced {text.count(one.old)} times, expected once")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / one.package.name
        shutil.copytree(one.package, copy)
        broken = text.replace(one.old, one.new) + (AROUND if "_around" in one.new else "")
        (copy / one.file).write_text(broken, encoding="utf-8")
        path, expression = one.tests
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=120", "-p", "no:cacheprovider", path, "-k", expression]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        if one.package == CHART:
            environment["VECTORINDEX_TEST_CHART"] = str(copy)
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    if done.returncode == 0:
        return ""
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode != 1 or not failed:
        raise LookupError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-500:]}")
    return failed[0]


def main() -> int:
    """Break everything once."""
    unnoticed = 0
    for one in BREAKS:
        try:
            failed = run(one)
        except LookupError as error:
            failed = ""
            print(f"        {error}")
        unnoticed += not failed
        print(f"{'red' if failed else 'UNNOTICED':9} {one.promise}\n          {failed}", flush=True)
    print(f"{len(BREAKS) - unnoticed} of {len(BREAKS)} breaks were noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
