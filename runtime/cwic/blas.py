"""NumPy's products on one thread.

Those of the entropy model are small: more threads gain little, and wait for each other actively,
on cores that the rest of the program or other programs need. Beside one busy program on two
cores, coding took six times as long with two threads as with one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

__all__ = ["one_thread"]


class _Limit:
    """One thread for all BLAS libraries of the process while anyone asks for it.

    The number of threads is a state of the process. So whoever comes first lowers it and whoever
    leaves last puts it back, in whatever order they leave.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._lowered: Any = None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1 and (libraries := _libraries()) is not None:
                self._lowered = libraries.limit(limits=1, user_api="blas")
                _let_others_set(libraries)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._lowered is not None:
                self._lowered.restore_original_limits()
                _let_others_set(_libraries())


def _let_others_set(libraries: Any) -> None:
    """Of threads that are not in such a block, threadpoolctl heeds only the last that was in one.

    Since its 3.8. What was set stays: an empty block puts back what it found.
    """
    with libraries.limit(limits=None):
        pass


_LIMIT = _Limit()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep products of the whole process on the thread that asks for them; may be nested.

    Without threadpoolctl (extra 'cpu') nothing changes; OPENBLAS_NUM_THREADS=1 does the same.
    """
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


@lru_cache(1)
def _libraries() -> Any:
    """Those that are loaded, NumPy's among them; None without threadpoolctl. Takes 2 ms."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
