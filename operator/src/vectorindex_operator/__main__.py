"""`python -m vectorindex_operator`: settings from the environment, logs to standard error, ends on SIGTERM."""

import asyncio
import logging
import os
import signal
import sys

from vectorindex_operator.app import App
from vectorindex_operator.errors import SettingsError
from vectorindex_operator.settings import Settings, parse_settings


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
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()


if __name__ == "__main__":
    sys.exit(main())
