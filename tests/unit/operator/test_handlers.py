"""What is asked of kopf: settings that failed in practice by their defaults, and nothing that writes to a resource."""

import asyncio
import datetime
import inspect
import itertools

import kopf
import pytest
from kopf._cogs.structs.references import Resource

from vectorindex_operator import handlers, names


def test_settings_whose_defaults_failed_are_set() -> None:
    settings = handlers.make_settings()
    watching, networking = settings.watching, settings.networking
    assert (watching.inactivity_timeout, watching.server_timeout, watching.connect_timeout, watching.chunk_size) == (70, 300, 10, 500)
    assert networking.request_timeout == 60
    assert settings.queueing.exit_timeout == 0.5
    assert settings.queueing.error_delays == (1, 1, 2, 3, 5, 8, 13, 21, 34, 60)
    assert settings.scanning.disabled is True  # no rights on definitions and namespaces
    assert settings.posting.enabled is False
    assert settings.queueing.worker_limit is None  # a slow object would hold up others
    assert settings.process.ultimate_exiting_timeout is None


def test_tries_never_end_and_each_request_begins_anew() -> None:
    backoffs = handlers.make_settings().networking.error_backoffs
    assert not isinstance(backoffs, (int, float))
    for _ in range(2):
        for pause, longest in zip(backoffs, (1, 2, 4, 8, 16, 30, 30), strict=False):
            assert longest / 2 <= pause <= longest
    assert 15 <= next(itertools.islice(backoffs, 10_000, None)) <= 30


def test_streams_that_failed_together_try_again_apart() -> None:
    backoffs = handlers.make_settings().networking.error_backoffs
    assert not isinstance(backoffs, (int, float))
    firsts = {next(iter(backoffs)) for _ in range(100)}
    assert len(firsts) > 90
    assert max(firsts) - min(firsts) > 0.3


@pytest.mark.parametrize(("group", "version", "plural"), names.CHILDREN.values())
def test_only_our_own_objects_are_streamed(group: str, version: str, plural: str) -> None:
    selectors = handlers.make_settings().watching.label_selectors
    asked = Resource(group=group, version=version, plural=plural, namespaced=True)
    assert selectors.collect(asked) == [f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"]
    other = Resource(group="example.com", version=version, plural=plural, namespaced=True)
    assert selectors.collect(other) == []


def test_nothing_is_registered_that_would_write_finalizers_or_annotations() -> None:
    registry = handlers.make_registry()
    assert not list(registry._changing.get_all_handlers())
    assert not list(registry._spawning.get_all_handlers())
    assert not list(registry._indexing.get_all_handlers())
    watching = list(registry._watching.get_all_handlers())
    assert len(watching) == 1 + len(names.CHILDREN)
    assert all(inspect.iscoroutinefunction(handler.fn) for handler in watching)  # others would wait for a thread of a small pool


def test_each_event_is_handed_on_with_its_kind() -> None:
    told: list[tuple[str, handlers.RawEvent]] = []
    memo = handlers.Memo(lambda kind, event: told.append((kind, event)))
    event = {"type": "DELETED", "object": {}}
    for group, version, plural in ((names.API_GROUP, "v1alpha1", names.PLURAL), *names.CHILDREN.values()):
        resource = Resource(group=group, version=version, plural=plural, namespaced=True)
        asyncio.run(handlers.on_event(resource=resource, event=event, memo=memo))
    assert told == [(kind, event) for kind in names.WATCHED_KINDS]


def test_equal_credentials_count_as_new_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: kopf.ConnectionInfo(server="https://api", token="t"))
    first, second = handlers.log_in(), handlers.log_in()
    assert first is not None
    assert second is not None
    assert first != second
    assert first.expiration is not None
    assert first.expiration > datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443"), ("", "https://api")]
)
def test_watches_call_the_api_server_by_its_address(monkeypatch: pytest.MonkeyPatch, host: str, server: str) -> None:
    """By name they would need DNS, which the chart's NetworkPolicy does not let through."""
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: kopf.ConnectionInfo(server="https://api", token="t"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = handlers.log_in()
    assert found is not None
    assert found.server == server


def test_logins_in_quick_succession_are_ever_further_apart() -> None:
    pace = handlers.Pace()
    assert [pace.next(now) for now in (0, 0, 1, 3, 7)] == [0, 1, 2, 4, 4]
    assert pace.next(200) == 0
