"""The command line: `serve` runs a replica, `check` makes one proof, `sql` prints how to prepare Postgres. Everything is done by others."""

import argparse
import asyncio
import faulthandler
import logging
import os
import resource
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from vectorindex_indexer import logs, names, report
from vectorindex_indexer.config import Settings, load_identity
from vectorindex_indexer.ddl import DEFAULT_ROLE, LONGEST_NAME_BYTES, VECTOR_TYPES, Columns, write_script
from vectorindex_indexer.errors import ConfigError, SourceError
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.names import Result
from vectorindex_indexer.predicate import DeletedKind
from vectorindex_indexer.replica import Replica, check_once, make_connector
from vectorindex_indexer.server import open_ports, serve
from vectorindex_indexer.source import Source
from vectorindex_indexer.version import VERSION

PROGRAM: Final = "vectorindex-indexer"
EXIT: Final = {Result.OK: 0, Result.DRIFT: 1, Result.UNKNOWN: 2}
EXIT_FAILED: Final = 2  # also what argparse ends with: a check that could not even begin is unknown
EXIT_SECONDS: Final = 2.0  # for threads that are still at work when everything else has ended
OPEN_FILES: Final = 16_384
ID_TYPES: Final = {"integer": IdKind.INTEGER, "uuid": IdKind.UUID, "text": IdKind.TEXT}

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _build_parser().parse_args(arguments)
    logs.configure(options.log_format, options.log_level)
    faulthandler.enable()
    _limit_process()
    settings = read_settings(options, os.environ)
    try:
        match options.command:
            case "serve":
                return _run_serve(settings)
            case "check":
                return _run_check(settings, options.output)
            case _:
                return _run_sql(settings, options)
    except (ConfigError, SourceError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def read_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings that options and environment give; no secret is among them."""
    return Settings(
        config=options.config,
        live=options.live,
        credentials=options.credentials,
        tls=options.tls,
        data=options.data,
        host=getattr(options, "host", Settings.host),
        search_port=getattr(options, "search_port", Settings.search_port),
        ops_port=getattr(options, "ops_port", Settings.ops_port),
        drain=timedelta(seconds=getattr(options, "drain_seconds", Settings.drain.total_seconds())),
        pod_name=environment.get("POD_NAME", ""),
        pod_uid=environment.get("POD_UID", ""),
    )


def _run_serve(settings: Settings) -> int:
    replica = Replica(settings)
    identity = replica.identity
    try:
        ports = open_ports(settings.host, settings.search_port, settings.ops_port)
    except OSError as error:
        print(f"{PROGRAM}: {settings.host}: ports {settings.search_port}, {settings.ops_port}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    search_port, ops_port = ports.numbers
    _log.info("listening", extra={"index": f"{identity.namespace}/{identity.name}", "search_port": search_port, "ops_port": ops_port})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(replica, ports, settings.drain, VERSION))
    end_soon()
    return 0


def end_soon(seconds: float = EXIT_SECONDS) -> None:
    """End the process though a thread still builds an index: Python would wait for it at exit, and nothing can interrupt FAISS."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _run_check(settings: Settings, output: str) -> int:
    status = check_once(settings)
    if output == "json":
        print(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
    else:
        print(summarise(status))
    return EXIT[Result(status.proof.result)]


def _run_sql(settings: Settings, options: argparse.Namespace) -> int:
    identity = load_identity(settings.config)
    if options.connect:
        columns = Source(identity.source, identity.index, make_connector(settings, identity)).look_up_columns()
    else:
        columns = read_columns(options)
    print(write_script(identity, columns, options.role), end="")
    return 0


def read_columns(options: argparse.Namespace) -> Columns:
    """Return what the options of `sql` say about types."""
    return Columns(id_kind=ID_TYPES[options.id_type], vector_type=options.vector_type, deleted=DeletedKind(options.tombstone_type))


def summarise(status: report.Status) -> str:
    """Return what a check found, for people."""
    identity, proof, source = status.identity, status.proof, status.source
    lines = [
        f"{identity.namespace}/{identity.name}: {proof.result} ({proof.reason})",
        *([f"  {proof.message}"] if proof.message else []),
        f"  source       {source.identity or '-'} ({source.reason})",
        *([f"               {source.message}"] if source.message and source.message != proof.message else []),
        f"  rows         {proof.source_rows} live in Postgres, {proof.ledger_rows} in the ledger",
        f"  layers       L0 source-ledger {proof.layers.L0}, L1 ledger-FAISS {proof.layers.L1}",
        f"  as of        {proof.as_of or 'never'}",
        f"  root digest  {proof.root_digest or '-'} ({proof.digest_spec or '-'})",
    ]
    drift = ", ".join(f"{rows} {kind}" for kind, rows in msgspec.structs.asdict(status.drift).items() if rows)
    quarantine = ", ".join(f"{rows} {reason}" for reason, rows in status.quarantine.items() if rows)
    if drift:
        lines.append(f"  drift        {drift}")
    if quarantine:
        lines.append(f"  quarantine   {quarantine}")
    lines.extend(summarise_repair(repair) for repair in status.repairs)
    return "\n".join([*lines, f"  took         {proof.seconds:.3f} s"])


def summarise_repair(repair: report.Repair) -> str:
    """Return one line about a repair, for people."""
    rows = ", ".join(repair.sample_ids) or "-"
    return f"  repair       {repair.at} {repair.action} after {repair.trigger}: {repair.result}, rows {rows}"


def _limit_process() -> None:
    """Write no core dumps, which would hold vectors and the password; allow as many open sockets as the system does."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description="Keeps a FAISS index equal to the live rows of a Postgres table, and proves it.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, required=True, metavar="FILE", help="the VectorIndex manifest, as applied to a cluster")
    common.add_argument("--live", type=Path, metavar="FILE", help="behaviour and wishes; without it they come from the manifest itself")
    common.add_argument(
        "--credentials", type=Path, default=Path(names.CREDENTIALS_FOLDER), metavar="FOLDER", help="files username, password"
    )
    common.add_argument("--tls", type=Path, default=Path(names.TLS_FOLDER), metavar="FOLDER", help="file ca.crt, if sslMode verifies")
    common.add_argument("--data", type=Path, default=Path(names.DATA_FOLDER), metavar="FOLDER", help="where the index is saved")
    common.add_argument("--log-format", choices=("auto", "json", "text"), default="auto", help="auto: text on a terminal, else JSON")
    common.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", parents=[common], help="run a replica until SIGTERM")
    serving.add_argument("--host", default=Settings.host, help="address to listen on; :: for IPv6 and IPv4")
    serving.add_argument("--search-port", type=_port, default=names.SEARCH_PORT, metavar="PORT")
    serving.add_argument("--ops-port", type=_port, default=names.OPS_PORT, metavar="PORT")
    serving.add_argument(
        "--drain-seconds", type=_seconds, default=Settings.drain.total_seconds(), metavar="S", help="serve so long after SIGTERM"
    )
    check = commands.add_parser("check", parents=[common], help="prove once; exits 0 ok, 1 drift, 2 unknown")
    check.add_argument("-o", "--output", choices=("text", "json"), default="text")
    _add_sql(commands.add_parser("sql", parents=[common], help="print the SQL that prepares Postgres: role, indexes, digest columns"))
    return parser


def _add_sql(sql: argparse.ArgumentParser) -> None:
    sql.description = "Prints SQL to read and run; changes nothing. Types of columns come from options, or with --connect from Postgres."
    sql.add_argument("--role", type=_role, default=DEFAULT_ROLE, metavar="NAME", help="the role that may read (%(default)s)")
    sql.add_argument("--connect", action="store_true", help="look types and indexes up, with --credentials; the options below are ignored")
    sql.add_argument("--id-type", choices=tuple(ID_TYPES), default="integer", help="integer is any width (%(default)s)")
    sql.add_argument("--vector-type", choices=VECTOR_TYPES, default="bytea", help="(%(default)s)")
    sql.add_argument("--tombstone-type", choices=tuple(map(str, DeletedKind)), default="boolean", help="(%(default)s)")


def _role(text: str) -> str:
    if not 1 <= len(text.encode()) <= LONGEST_NAME_BYTES or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected a name of 1 to {LONGEST_NAME_BYTES} bytes, got {text!r}")
    return text


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {number}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"expected 0 to 3600, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
