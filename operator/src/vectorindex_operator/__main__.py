"""`python -m vectorindex_operator`: settings from the environment, logs to standard error, ends on SIGTERM."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from vectorindex_operator.app import App
from vectorindex_operator.errors import LeadershipLostError, SettingsError
from vectorindex_operator.settings import Settings, parse_settings

LOST: Final = 3
"""Exit code of an operator that no longer leads: started again, it waits for its turn."""

STUCK: Final = 4
"""Exit code of an operator that was told to end and could not in good order."""

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})

END_LIMIT: Final = timedelta(seconds=8)
"""Well below `terminationGracePeriodSeconds` of the chart."""


def main() -> int:
    """Run the operator; return the exit code."""
    try:
        settings = parse_settings(os.environ)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if settings.log_level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # warns that signals are ours
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # before there are other threads, which inherit it
    code = 0
    try:
        asyncio.run(_run(settings))
    except* SettingsError as wrong:
        print(f"error: {wrong.exceptions[0]}", file=sys.stderr)
        code = 2
    except* LeadershipLostError as lost:
        logging.getLogger(__name__).error("ending, as another operator may act by now: cause=%s", lost.exceptions)
        code = LOST
    return code


async def _run(settings: Settings) -> None:
    app = App(settings, on_lost=lambda: _end_within(END_LIMIT, LOST))
    loop = asyncio.get_running_loop()
    threading.Thread(target=_await_signal, args=(loop, app.stop), name="signals", daemon=True).start()
    await app.run()


def _await_signal(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Wait for the signal to end. A thread of its own hears it also while the event loop hangs."""
    signal.sigwait(SIGNALS)
    _end_within(END_LIMIT, STUCK)
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop)


def _end_within(limit: timedelta, code: int) -> None:
    """End the process after the limit whatever it does: what hangs can't keep it longer."""
    timer = threading.Timer(limit.total_seconds(), os._exit, (code,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
