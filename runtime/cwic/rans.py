"""Entropy coder: interleaved range asymmetric numeral systems (rANS).

A symbol is an interval ``[start, start + freq)`` of ``[0, 65536)`` with
``1 <= freq <= 65535``; it costs ``log2(65536 / freq)`` bits. A stream has 3 to 5
bytes a lane more. The rounding of the states costs 0.0001 % or less where the
symbols come as often as their intervals say; where not, it costs or saves up to
about 0.02 %. Symbols come in passes, arrays whose intervals are all known at
once; symbol ``i`` of a pass belongs to lane ``i % lanes``, and every pass starts
again at lane 0. A lane is a 40-bit state ``x`` in ``[2^24, 2^40)``::

    bits, p1        --bit_intervals----+
    symbols, tables --symbol_intervals-+-> starts, freqs --encode--> bytes
    bytes --Decoder--> decode_bits(p1) | decode_symbols(tables), a pass a call --> finish()

    encode a symbol:  if x >= freq << 24: emit x & 0xffff; x >>= 16
                      x = (x // freq << 16) + x % freq + start
    decode a symbol:  slot = x & 0xffff                 (its interval is the symbol)
                      x = freq * (x >> 16) + slot - start
                      if x < 2^24: x = x << 16 | next word

Each is the inverse of the other, so the encoder starts from ``x = 2^24`` and
walks everything backwards, and the decoder reads forwards and must arrive at
``2^24`` with no word left. One symbol sequence has exactly one stream: other
bytes under the same intervals give an error or other symbols. ``finish`` sees
most damage, not all; a caller who must know keeps a checksum.

Bytes: ``lanes`` final states of 5 bytes each, then the words as uint16 in the
order of decoding, all little endian. The number of lanes, the passes and the
intervals are the caller's to know.

The loops are in C (``_rans.c``) or, where that is not built or ``CWIC_RANS`` is
``numpy`` when this module is imported, in NumPy: the same bytes, slower.

J. Duda, "Asymmetric numeral systems", arXiv:1311.2540, 2013.
F. Giesen, "Interleaved entropy coders", arXiv:1402.3392, 2014.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cwic.errors import CorruptError, TruncatedError, UsageError

__all__ = [
    "Decoder",
    "Tables",
    "bit_intervals",
    "encode",
    "head_bytes",
    "implementation",
    "symbol_intervals",
]

Implementation = Literal["c", "numpy"]
_Rows = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.intp]
_Decoded = tuple[bytes, int, bytes]

_TOTAL = 1 << 16
_LOW = 1 << 24
_STATE_BYTES = 5
_LANES = (1, 2, 4, 8, 16, 32, 64)
_DAMAGED = "the file is damaged, fetch or encode it again"


class _NumPy:
    """The twin of ``_rans.c``, whose head describes the arguments.

    One array operation works on a row, one symbol a lane; a short row is filled up with the
    interval (0, 65536), which leaves a lane as it is. Only the stream is not trusted here.
    """

    def encode(self, starts: bytes, freqs: bytes, pass_sizes: bytes, lanes: int) -> bytes:
        x = np.full(lanes, _LOW, np.int64)
        words: list[bytes] = []
        end = len(starts) // 2
        for size in reversed(np.frombuffer(pass_sizes, np.int64).tolist()):
            start = _in_rows(np.frombuffer(starts, np.uint16)[end - size : end], lanes, 0)
            freq = _in_rows(np.frombuffer(freqs, np.uint16)[end - size : end], lanes, _TOTAL)
            end -= size
            gap = _TOTAL - freq
            limit = freq << 24
            before = np.empty_like(start)
            emit = np.empty(start.shape, np.bool_)
            for row in range(len(start) - 1, -1, -1):
                before[row] = x
                np.greater_equal(x, limit[row], out=emit[row])
                np.right_shift(x, 16, out=x, where=emit[row])
                x += x // freq[row] * gap[row] + start[row]  # q << 16 | r is x + q * (65536 - freq)
            words.append((before[emit] & 0xFFFF).astype("<u2").tobytes())
        states = x.astype("<i8").view(np.uint8).reshape(lanes, 8)[:, :_STATE_BYTES]
        return states.tobytes() + b"".join(reversed(words))

    def decode_bits(self, words: bytes, offset: int, states: bytes, p1: bytes) -> _Decoded:
        x = np.frombuffer(states, np.int64)
        all_words = np.frombuffer(words, "<u2")
        one = _in_rows(np.frombuffer(p1, np.uint16), len(x), 0)
        zero = _TOTAL - one
        bits = np.empty(one.shape, np.bool_)
        for row in range(len(one)):
            slot = x & 0xFFFF
            bit = np.greater_equal(slot, zero[row], out=bits[row])
            freq = np.where(bit, one[row], zero[row])
            x = freq * (x >> 16) + slot - bit * zero[row]
            offset = _refill(x, all_words, offset)
        return bits.tobytes()[: len(p1) // 2], offset, x.tobytes()

    def decode_symbols(
        self, words: bytes, offset: int, states: bytes, cumulative: bytes, width: int, rows: bytes
    ) -> _Decoded:
        x = np.frombuffer(states, np.int64)
        all_words = np.frombuffer(words, "<u2")
        # One sorted array of all tables, and one search in it for all lanes. The last table has
        # the one symbol (0, 65536) for the lanes that a short row leaves out.
        bounds = np.append(np.frombuffer(cumulative, np.uint32).astype(np.int64), [0, _TOTAL])
        freqs = np.diff(bounds)
        keys = bounds + np.arange(len(bounds)) // width * (_TOTAL + 1)
        table = _in_rows(np.frombuffer(rows, np.uint32), len(x), len(bounds) // width)
        base = table * (_TOTAL + 1)
        found = np.empty(table.shape, np.int64)
        for row in range(len(table)):
            slot = x & 0xFFFF
            at = np.searchsorted(keys, slot + base[row], "right") - 1
            found[row] = at
            x = freqs[at] * (x >> 16) + slot - bounds[at]
            offset = _refill(x, all_words, offset)
        symbols = (found - table * width).astype(np.uint8).tobytes()[: len(rows) // 4]
        return symbols, offset, x.tobytes()


def _in_rows(values: NDArray[Any], lanes: int, idle: int) -> NDArray[np.int64]:
    rows = np.full((-(-len(values) // lanes), lanes), idle, np.int64)
    rows.reshape(-1)[: len(values)] = values
    return rows


def _refill(x: NDArray[np.int64], words: NDArray[np.uint16], offset: int) -> int:
    """Give the lanes of ``x`` that are low a word each, in lane order; return the new offset."""
    (low,) = (x < _LOW).nonzero()
    if len(low):
        read = words[offset : offset + len(low)]
        if len(read) < len(low):
            raise EOFError
        x[low] = x[low] << 16 | read
    return offset + len(low)


_BACKENDS: dict[Implementation, _NumPy] = {"numpy": _NumPy()}
with contextlib.suppress(ImportError):  # not built where there was no compiler
    _BACKENDS["c"] = cast(_NumPy, importlib.import_module("cwic._rans"))
_DEFAULT: Implementation = (
    "c" if "c" in _BACKENDS and os.environ.get("CWIC_RANS") != "numpy" else "numpy"
)


def implementation() -> Implementation:
    """Which loops run where the caller does not choose: ``c``, or the slower ``numpy``."""
    return _DEFAULT


def _backend(name: Implementation | None) -> _NumPy:
    try:
        return _BACKENDS[name or _DEFAULT]
    except KeyError:
        raise UsageError(
            f"there is no coder {name!r} here; use one of {', '.join(sorted(_BACKENDS))}"
        ) from None


def _check_lanes(lanes: int) -> None:
    if lanes not in _LANES:
        raise UsageError(f"lanes is {lanes}; use a power of two from 1 to 64")


def _check_vector(name: str, array: NDArray[Any], dtype: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        raise UsageError(f"{name} is not a vector of {dtype.__name__}; convert it first")


def _check_p1(p1: NDArray[np.uint16]) -> None:
    _check_vector("p1", p1, np.uint16)
    if len(p1) and p1.min() == 0:
        raise UsageError("p1 holds a 0; keep probabilities within 1 to 65535")


class Tables:
    """Tables that were checked once, for :meth:`Decoder.decode_symbols`.

    Args:
        cumulative: as :func:`symbol_intervals` takes them; it is copied.

    Raises:
        UsageError: it is not of that form.
    """

    def __init__(self, cumulative: NDArray[np.uint32]) -> None:
        _check_tables(cumulative)
        self._data = cumulative.tobytes()
        self._count, self._width = cumulative.shape

    @property
    def cumulative(self) -> NDArray[np.uint32]:
        """The tables, for :func:`symbol_intervals`; read-only."""
        return np.frombuffer(self._data, np.uint32).reshape(self._count, self._width)

    def arguments(self, rows: _Rows) -> tuple[bytes, int, bytes]:
        """What the loops take."""
        _check_rows(rows, self._count)
        return self._data, self._width, rows.astype(np.uint32).tobytes()


def _check_tables(cumulative: NDArray[np.uint32]) -> None:
    if (
        not isinstance(cumulative, np.ndarray)
        or cumulative.dtype != np.uint32
        or cumulative.ndim != 2
        or not 2 <= cumulative.shape[1] <= 257
    ):
        raise UsageError("cumulative is not a uint32 matrix of 2 to 257 columns; convert it first")
    widths = np.diff(cumulative.astype(np.int64), axis=1)
    ends = cumulative[:, 0].any() or (cumulative[:, -1] != _TOTAL).any()
    if ends or (widths < 0).any() or (widths >= _TOTAL).any():
        raise UsageError(
            "a table of cumulative cannot be used; let it rise from 0 to 65536 in steps below 65536"
        )


def _check_rows(rows: _Rows, tables: int) -> None:
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise UsageError("rows is not a vector of integers; convert it first")
    if len(rows) and not (rows.min() >= 0 and rows.max() < tables):
        raise UsageError(f"rows leaves the {tables} tables of cumulative; check the index")


def head_bytes(lanes: int) -> int:
    """Bytes of a stream before its first word."""
    return _STATE_BYTES * lanes


def bit_intervals(
    bits: NDArray[np.uint8], p1: NDArray[np.uint16]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The ``(starts, freqs)`` of bits whose probability of a 1 is ``p1 / 65536``."""
    _check_vector("bits", bits, np.uint8)
    _check_p1(p1)
    if len(bits) != len(p1) or (len(bits) and bits.max() > 1):
        raise UsageError("bits is not one 0 or 1 for each p1; check the arrays")
    zero = _TOTAL - p1.astype(np.int32)
    return (bits * zero).astype(np.uint16), np.where(bits, p1, zero).astype(np.uint16)


def symbol_intervals(
    symbols: NDArray[np.uint8], cumulative: NDArray[np.uint32], rows: _Rows
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The ``(starts, freqs)`` of symbols; symbol ``i`` is of the table ``cumulative[rows[i]]``.

    Symbol ``s`` of table ``t`` owns ``[cumulative[t, s], cumulative[t, s + 1])``.
    """
    _check_vector("symbols", symbols, np.uint8)
    _check_tables(cumulative)
    _check_rows(rows, len(cumulative))
    count = cumulative.shape[1] - 1
    if len(symbols) != len(rows) or (len(symbols) and symbols.max() >= count):
        raise UsageError(f"symbols is not one of 0 to {count - 1} for each row; check the arrays")
    column = symbols.astype(np.intp)
    starts = cumulative[rows, column]
    freqs = cumulative[rows, column + 1] - starts
    if not freqs.all():
        raise UsageError("a symbol has probability zero in its table; give it a width of 1 or more")
    return starts.astype(np.uint16), freqs.astype(np.uint16)


def encode(
    starts: NDArray[np.uint16],
    freqs: NDArray[np.uint16],
    pass_sizes: Sequence[int],
    lanes: int,
    *,
    implementation: Implementation | None = None,
) -> bytes:
    """Code the intervals, pass after pass; the decoder is asked for the same passes in turn."""
    _check_lanes(lanes)
    _check_vector("starts", starts, np.uint16)
    _check_vector("freqs", freqs, np.uint16)
    try:
        sizes = [operator.index(size) for size in pass_sizes]
    except TypeError:
        raise UsageError("pass_sizes is not a list of whole numbers; convert it first") from None
    if len(starts) != len(freqs) or sum(sizes) != len(starts) or min(sizes, default=0) < 0:
        raise UsageError("starts, freqs and pass_sizes do not fit each other; check their lengths")
    if len(freqs) and (freqs.min() == 0 or (starts.astype(np.int32) + freqs).max() > _TOTAL):
        raise UsageError("an interval is empty or ends above 65536; check starts and freqs")
    sizes_ = np.array(sizes, np.int64).tobytes()
    return _backend(implementation).encode(starts.tobytes(), freqs.tobytes(), sizes_, lanes)


class Decoder:
    """Reads the passes of one stream in the order in which they were encoded.

    Any bytes at all give symbols or a :class:`~cwic.errors.StreamError`. After an error the
    decoder stands where it stood before the call.
    """

    def __init__(
        self, data: bytes, lanes: int, *, implementation: Implementation | None = None
    ) -> None:
        _check_lanes(lanes)
        if not isinstance(data, bytes):
            raise UsageError("the entropy-coded data is not bytes; convert it first")
        head = head_bytes(lanes)
        if len(data) < head or (len(data) - head) % 2:
            raise TruncatedError(f"the entropy-coded data is cut off; {_DAMAGED}")
        padded = np.zeros((lanes, 8), np.uint8)
        padded[:, :_STATE_BYTES] = np.frombuffer(data, np.uint8, head).reshape(lanes, -1)
        states = padded.view("<i8")  # 5 bytes are below 2^40
        if states.min() < _LOW:
            raise CorruptError(f"the entropy-coded data starts with an invalid state; {_DAMAGED}")
        self._backend = _backend(implementation)
        self._words = data[head:]
        self._offset = 0
        self._states = states.astype(np.int64).tobytes()

    @property
    def state(self) -> tuple[int, bytes]:
        """Where the decoder stands; it can be set back to it."""
        return self._offset, self._states

    @state.setter
    def state(self, state: tuple[int, bytes]) -> None:
        self._offset, self._states = state

    def decode_bits(self, p1: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """One pass of bits: ``p1`` is the probability of a 1 in units of 1/65536, never 0."""
        _check_p1(p1)
        return self._pass(self._backend.decode_bits, p1.tobytes())

    def decode_available_bits(self, p1: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """The first bits of a pass, as many as data that was cut has; nothing can follow them."""
        return self._available(lambda count: self.decode_bits(p1[:count]), len(p1))

    def decode_available_symbols(self, tables: Tables, rows: _Rows) -> NDArray[np.uint8]:
        """The same of a pass of symbols."""
        return self._available(lambda count: self.decode_symbols(tables, rows[:count]), len(rows))

    def _available(
        self, decode: Callable[[int], NDArray[np.uint8]], many: int
    ) -> NDArray[np.uint8]:
        few = 0  # so many are there; up to ``many`` may be
        symbols = np.zeros(0, np.uint8)
        while few < many:
            middle = (few + many + 1) // 2
            before = self.state
            try:
                symbols, few = decode(middle), middle
            except TruncatedError:
                many = middle - 1
            self.state = before
        return symbols

    def decode_symbols(
        self, cumulative: NDArray[np.uint32] | Tables, rows: _Rows
    ) -> NDArray[np.uint8]:
        """One pass of symbols; the tables are those of :func:`symbol_intervals`."""
        tables = cumulative if isinstance(cumulative, Tables) else Tables(cumulative)
        return self._pass(self._backend.decode_symbols, *tables.arguments(rows))

    def _pass(self, decode: Callable[..., _Decoded], *args: bytes | int) -> NDArray[np.uint8]:
        try:
            symbols, self._offset, self._states = decode(
                self._words, self._offset, self._states, *args
            )
        except EOFError:
            raise TruncatedError(
                f"the entropy-coded data ends before its last symbol; {_DAMAGED}"
            ) from None
        return np.frombuffer(symbols, np.uint8).copy()

    def finish(self) -> None:
        """Check that the last symbol was also the end of the data."""
        done = 2 * self._offset == len(self._words)
        if not done or (np.frombuffer(self._states, np.int64) != _LOW).any():
            raise CorruptError(
                f"the entropy-coded data does not end with its last symbol; {_DAMAGED}"
            )
