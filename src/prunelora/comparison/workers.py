"""Processes that train trials at the same time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end at once if the block fails or is interrupted, or this process is killed.

    The pool alone would first finish all submitted trainings, which takes hours.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # Waits until they have ended, so that none writes any more.


def _end_with_parent() -> None:
    """Let this process end as soon as the process that started it has ended."""

    def wait_and_end() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()
