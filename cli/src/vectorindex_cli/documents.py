"""What each verb tells programs: one document, as JSON or YAML. Pure."""

import json
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import yaml

from vectorindex_cli.bundle import Bundle
from vectorindex_cli.resource import Json, Member, VectorIndex, judge

FORMS: Final = ("json", "yaml")


def dump(document: Json, form: str) -> str:
    """Return the document in this form."""
    if form == "json":
        return json.dumps(document, indent=2)
    return str(yaml.safe_dump(document, sort_keys=False)).rstrip()


def build_name(index: VectorIndex) -> Json:
    """Return which VectorIndex it is: how each document begins."""
    return {"name": index.metadata.name, "namespace": index.metadata.namespace}


def build_verdict(index: VectorIndex, now: datetime) -> Json:
    """Return what the status amounts to."""
    judgement = judge(index, now)
    return {
        **build_name(index),
        "verdict": judgement.verdict.name.capitalize(),
        **({"doubt": judgement.doubt} if judgement.doubt else {}),
    }


def build_status(index: VectorIndex, document: Json, now: datetime) -> Json:
    """Return verdict and status, the latter as the API server has it."""
    return {**build_verdict(index, now), "generation": index.metadata.generation, "status": document.get("status") or {}}


def build_diff(index: VectorIndex, now: datetime, limit: int) -> Json:
    """Return what differs in each replica."""
    return {**build_verdict(index, now), "replicas": [_build_member(member, limit) for member in index.status.members]}


def _build_member(member: Member, limit: int) -> Json:
    samples = {kind: getattr(member.drift_samples, kind)[:limit] for kind in (member.drift.kinds if member.drift else {})}
    told = {
        "pod": member.pod,
        "result": member.result,
        "reason": member.reason,
        "message": member.message,
        "asOf": member.as_of,
        "heldPlan": member.held_plan.id if member.held_plan else None,
    }
    kinds = member.drift.kinds if member.drift else None
    differing = None if kinds is None else {kind: {"rows": rows, "sampleIds": samples[kind]} for kind, rows in kinds.items()}
    return {key: value for key, value in told.items() if value is not None} | ({} if differing is None else {"drift": differing})


def build_report(index: VectorIndex, bundle: Bundle, path: Path, size: int) -> Json:
    """Return what a support bundle holds."""
    files = [{"path": name, "bytes": len(bundle.files[name])} for name in sorted(bundle.files)]
    missing = [{"what": what, "why": why} for what, why in bundle.not_read]
    return {**build_name(index), "path": str(path), "bytes": size, "files": files, "notRead": missing}


def build_plans(index: VectorIndex) -> Json:
    """Return the held plans, each with some of the rows it concerns."""
    ids = {member.held_plan.id: member.held_plan.sample_ids for member in index.status.members if member.held_plan}
    plans = [msgspec.to_builtins(plan) | {"sampleIds": ids.get(plan.id, [])} for plan in index.status.held_plans]
    return {**build_name(index), "heldPlans": plans}
