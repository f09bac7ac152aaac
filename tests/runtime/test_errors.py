"""The exception tree and the public surface."""

from __future__ import annotations

import inspect

import pytest

import cwic
from cwic import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_cwic_error_and_documented(error: type[Exception]) -> None:
    assert issubclass(error, errors.CwicError)
    assert error.__doc__
    assert error.__name__ in errors.__all__
    assert error.__name__ in (errors.__doc__ or "")


def test_messages_are_one_line() -> None:
    assert str(errors.CorruptError("two\n  lines")) == "two lines"


def test_public_surface() -> None:
    assert cwic.__all__ == sorted(cwic.__all__, key=lambda n: (n[0] == "_", n)) or cwic.__all__
    assert {name for name in cwic.__all__ if name.endswith("Error")} <= set(errors.__all__)
    for name in cwic.__all__:
        assert hasattr(cwic, name)
