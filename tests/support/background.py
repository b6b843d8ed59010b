"""Work that goes on in threads while a test does something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = Callable[[threading.Event], None]
"""Goes on until the event is set."""


@contextmanager
def work_beside(*works: Work) -> Iterator[None]:
    """Keep all of this going until the context ends. Raises what the first of it failed of."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run(work: Work) -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]
