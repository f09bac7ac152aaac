"""NumPy's products stay on one thread while the runtime codes, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

import cwic
from cwic import blas


def numbers() -> set[int]:
    """Threads of each BLAS library that is loaded."""
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = numbers()
    # The thread that sets it ends: while it lives threadpoolctl lets no other one set it.
    in_a_thread(lambda: threadpool_limits(2, user_api="blas"))
    if numbers() != {2}:
        pytest.skip("NumPy's BLAS has no threads to switch off")
    yield
    in_a_thread(lambda: threadpool_limits(max(before), user_api="blas"))


def test_one_thread_inside_and_as_before_outside() -> None:
    with blas.one_thread():
        assert numbers() == {1}
        with blas.one_thread():
            assert numbers() == {1}
        assert numbers() == {1}
    assert numbers() == {2}


def test_an_error_puts_the_threads_back() -> None:
    with pytest.raises(KeyError), blas.one_thread():
        raise KeyError
    assert numbers() == {2}


def test_who_leaves_first_does_not_put_them_back_for_the_other() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        assert entered.wait(10)
    assert numbers() == {1}
    leave.set()
    thread.join()
    assert numbers() == {2}


@pytest.mark.parametrize("what", ["encode", "decode", "salvage", "effort"])
def test_coding_takes_one_thread(
    what: str,
    codec: cwic.Codec,
    stream: bytes,
    small: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[set[int]] = []
    model = type(codec.context.codes)
    names = {"effort": "step_bits", "encode": "encode_step"}
    name = names.get(what, "decode_available" if what == "salvage" else "decode_pass")
    original = getattr(model, name)

    def watched(*args: Any, **options: Any) -> NDArray[np.generic]:
        seen.append(numbers())
        found: NDArray[np.generic] = original(*args, **options)
        return found

    monkeypatch.setattr(model, name, watched)
    if what in ("encode", "effort"):
        codec.encode(small, effort=int(what == "effort"))
    else:
        getattr(codec, what)(stream[:-40] if what == "salvage" else stream)
    assert seen
    assert all(found == {1} for found in seen)
    assert numbers() == {2}


def test_without_threadpoolctl_nothing_changes() -> None:
    code = (
        "import sys; sys.modules['threadpoolctl'] = None\n"
        "from cwic import blas\n"
        "with blas.one_thread(): print('coded')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (done.returncode, done.stdout) == (0, "coded\n"), done.stderr
