"""How many tiles are coded at a time: as many as there are cores, or as the caller says."""

from __future__ import annotations

import os

import pytest

from cwic.codec import Codec
from cwic.cores import usable_cores
from cwic.errors import UsageError


@pytest.mark.parametrize(("threads", "tiles"), [(0, usable_cores()), (1, 1), (3, 3)])
def test_tiles_at_a_time(codec: Codec, threads: int, tiles: int) -> None:
    assert Codec(codec.bundle, codec.runner, threads).coder.threads == tiles


def test_a_negative_number_of_threads_is_refused(codec: Codec) -> None:
    with pytest.raises(UsageError, match="use 1 or more, or 0 for all cores"):
        Codec(codec.bundle, codec.runner, -1)


def test_cores_are_those_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("found", "cores"), [(7, 7), (None, 1)])
def test_cores_of_a_system_that_does_not_say(
    monkeypatch: pytest.MonkeyPatch, found: int | None, cores: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: found)
    assert usable_cores() == cores
