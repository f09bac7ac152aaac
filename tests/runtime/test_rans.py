"""The entropy coder: both implementations against a scalar reference, and damaged streams."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import CorruptError, StreamError, TruncatedError

GOLDEN = Path(__file__).with_name("golden")
REFERENCE = runpy.run_path(str(GOLDEN / "make_rans.py"))
LANES = (1, 2, 8, 32)

needs_c = pytest.mark.skipif("c" not in rans._BACKENDS, reason="cwic._rans is not built")
both = pytest.mark.parametrize("impl", [pytest.param("c", marks=needs_c), "numpy"])
every_lanes = pytest.mark.parametrize("lanes", LANES)


class Part(NamedTuple):
    """A pass: bits under ``p1``, or symbols under ``tables[rows]``."""

    values: NDArray[np.uint8]
    p1: NDArray[np.uint16] | None = None
    tables: NDArray[np.uint32] | None = None
    rows: NDArray[np.uint16] | None = None

    def intervals(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        if self.p1 is not None:
            return rans.bit_intervals(self.values, self.p1)
        return rans.symbol_intervals(self.values, self.tables, self.rows)

    def decode(self, decoder: rans.Decoder) -> NDArray[np.uint8]:
        if self.p1 is not None:
            return decoder.decode_bits(self.p1)
        return decoder.decode_symbols(self.tables, self.rows)


def bits(rng: np.random.Generator, count: int) -> Part:
    p1 = rng.choice(np.array([1, 2, 700, 32768, 60000, 65534, 65535], np.uint16), count)
    return Part(rng.integers(0, 2, count, np.uint8), p1=p1)


def symbols(rng: np.random.Generator, count: int, alphabet: int = 16) -> Part:
    """Values by their probability, from tables where about a third of the symbols has none."""
    weights = rng.random((5, alphabet)) ** 4 * (rng.random((5, alphabet)) < 0.7)
    weights[:, :2] += 1e-3  # one symbol alone would have all of a table
    tables = np.zeros((5, alphabet + 1), np.uint32)
    tables[:, 1:] = np.cumsum(weights, 1) / weights.sum(1, keepdims=True) * 65536
    tables[:, -1] = 65536
    rows = rng.integers(0, 5, count, np.uint16)
    slots = rng.integers(0, 65536, count)
    return Part((tables[rows, 1:] <= slots[:, None]).sum(1).astype(np.uint8), None, tables, rows)


def mixed(rng: np.random.Generator, lanes: int) -> list[Part]:
    sizes = (0, 1, lanes - 1, lanes, lanes + 1, 0, 5 * lanes + 3, 200, 0)
    return [(bits, symbols)[i % 2](rng, size) for i, size in enumerate(sizes)]


def joined(parts: list[Part]) -> tuple[NDArray[np.uint16], NDArray[np.uint16], list[int]]:
    starts, freqs = zip(*(part.intervals() for part in parts), strict=True)
    return np.concatenate(starts), np.concatenate(freqs), [len(part.values) for part in parts]


def encode(parts: list[Part], lanes: int, impl: str) -> bytes:
    return rans.encode(*joined(parts), lanes, implementation=impl)


def decode(stream: bytes, parts: list[Part], lanes: int, impl: str) -> list[NDArray[np.uint8]]:
    decoder = rans.Decoder(stream, lanes, implementation=impl)
    values = [part.decode(decoder) for part in parts]
    decoder.finish()
    return values


def same(values: list[NDArray[np.uint8]], parts: list[Part]) -> bool:
    return all(np.array_equal(v, part.values) for v, part in zip(values, parts, strict=True))


def by_reference(parts: list[Part], lanes: int) -> bytes:
    pairs = [[(int(s), int(f)) for s, f in zip(*p.intervals(), strict=True)] for p in parts]
    return REFERENCE["encode"](pairs, lanes)


# ---- Streams are right ----------------------------------------------------------------------


@both
@every_lanes
def test_bits_round_trip_at_any_probability(impl: str, lanes: int) -> None:
    parts = [bits(np.random.default_rng(lanes), 3001)]
    stream = encode(parts, lanes, impl)
    assert stream == by_reference(parts, lanes)
    values = decode(stream, parts, lanes, impl)
    assert values[0].dtype == np.uint8
    assert same(values, parts)


@both
@every_lanes
def test_mixed_passes_round_trip(impl: str, lanes: int) -> None:
    parts = mixed(np.random.default_rng(lanes), lanes)
    stream = encode(parts, lanes, impl)
    assert stream == by_reference(parts, lanes)
    assert same(decode(stream, parts, lanes, impl), parts)


@both
@pytest.mark.parametrize("alphabet", [2, 3, 17, 256])
def test_alphabets_of_any_size(impl: str, alphabet: int) -> None:
    parts = [symbols(np.random.default_rng(alphabet), 2000, alphabet)]
    assert len(np.unique(parts[0].values)) > alphabet // 4
    stream = encode(parts, 8, impl)
    assert stream == by_reference(parts, 8)
    assert same(decode(stream, parts, 8, impl), parts)


@both
def test_rows_may_be_intp(impl: str) -> None:
    part = symbols(np.random.default_rng(1), 100)
    wide = part._replace(rows=part.rows.astype(np.intp))
    assert encode([wide], 4, impl) == encode([part], 4, impl)
    assert same(decode(encode([part], 4, impl), [wide], 4, impl), [part])


@both
@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "rans.json").read_text()), ids=lambda c: c["name"]
)
def test_golden_streams(impl: str, case: dict[str, Any]) -> None:
    parts = [
        Part(np.array(part["values"], np.uint8), p1=np.array(part["p1"], np.uint16))
        if "p1" in part
        else Part(
            np.array(part["values"], np.uint8),
            tables=np.array(part["cumulative"], np.uint32),
            rows=np.array(part["rows"], np.uint16),
        )
        for part in case["passes"]
    ] or [bits(np.random.default_rng(0), 0)]
    stream = bytes.fromhex(case["stream"])
    assert encode(parts, case["lanes"], impl) == stream
    assert same(decode(stream, parts, case["lanes"], impl), parts)


def test_golden_file_is_what_its_script_makes() -> None:
    assert REFERENCE["text"]() == (GOLDEN / "rans.json").read_text(encoding="ascii")


@both
@every_lanes
@pytest.mark.parametrize("kind", ["bits", "symbols"])
def test_size_is_near_the_ideal_code_length(impl: str, lanes: int, kind: str) -> None:
    rng = np.random.default_rng(7)
    part = symbols(rng, 200_000)
    if kind == "bits":
        p1 = rng.integers(1, 65536, 200_000).astype(np.uint16)
        part = Part((rng.integers(0, 65536, len(p1)) < p1).astype(np.uint8), p1=p1)
    ideal = (16 - np.log2(part.intervals()[1].astype(np.float64))).sum() / 8
    # A lane starts with 3 bytes of nothing in its state, and ends with 0 to 2 bytes of room. The
    # rounding, up or down, is less than a bit in all: at most 0.4 bits of 145 and 494 thousand.
    extra = len(encode([part], lanes, impl)) - ideal
    assert 3 * lanes - 0.125 <= extra <= 5 * lanes + 0.125


# ---- Damaged streams are refused ------------------------------------------------------------


@both
@every_lanes
def test_every_truncation_is_refused(impl: str, lanes: int) -> None:
    parts = mixed(np.random.default_rng(lanes), lanes)
    stream = encode(parts, lanes, impl)
    assert len(stream) > 5 * lanes + 20
    for length in range(len(stream)):
        with pytest.raises(
            TruncatedError, match=r"; the file is damaged, fetch or encode it again$"
        ):
            decode(stream[:length], parts, lanes, impl)


@both
@every_lanes
def test_no_flipped_bit_goes_unseen(impl: str, lanes: int) -> None:
    """An error or other symbols: which of them depends, so the container adds a checksum."""
    parts = [bits(np.random.default_rng(1), 40), symbols(np.random.default_rng(2), 60)]
    stream = encode(parts, lanes, impl)
    refused = 0
    for place in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[place // 8] ^= 1 << place % 8
        try:
            values = decode(bytes(flipped), parts, lanes, impl)
        except StreamError:
            refused += 1
        else:
            assert not same(values, parts)
    assert refused > 4 * len(stream)


@both
def test_finish_wants_the_last_word_and_the_first_state(impl: str) -> None:
    parts = [bits(np.random.default_rng(3), 99)]
    stream = encode(parts, 4, impl)
    with pytest.raises(CorruptError, match="does not end with its last symbol"):
        decode(stream + b"\0\0", parts, 4, impl)
    shorter = [parts[0]._replace(p1=parts[0].p1[:-1])]
    with pytest.raises(CorruptError, match="does not end with its last symbol"):
        decode(stream, shorter, 4, impl)


def test_an_invalid_state_is_refused() -> None:
    with pytest.raises(CorruptError, match="invalid state"):
        rans.Decoder(bytes([0, 0, 0, 1, 0, 0xFF, 0xFF, 0xFF, 0, 0]), 2)


@both
def test_a_failed_pass_leaves_the_decoder_where_it_was(impl: str) -> None:
    part = bits(np.random.default_rng(4), 500)
    decoder = rans.Decoder(encode([part], 8, impl), 8, implementation=impl)
    with pytest.raises(TruncatedError):
        decoder.decode_bits(np.full(100_000, 32768, np.uint16))
    assert np.array_equal(part.decode(decoder), part.values)
    decoder.finish()


@both
@every_lanes
@pytest.mark.parametrize("kind", ["bits", "symbols"])
def test_of_a_cut_pass_the_first_symbols_are_available(impl: str, lanes: int, kind: str) -> None:
    """As many as any decoder could tell, and the decoder stands where it stood."""
    rng = np.random.default_rng(lanes)
    before, part = symbols(rng, 11), (bits if kind == "bits" else symbols)(rng, 400)
    stream = encode([before, part], lanes, impl)
    counts = []
    for length in range(rans.head_bytes(lanes), len(stream) + 1, 2):
        decoder = rans.Decoder(stream[:length], lanes, implementation=impl)
        try:
            before.decode(decoder)
        except TruncatedError:
            continue
        state = decoder.state
        if part.p1 is not None:
            found = decoder.decode_available_bits(part.p1)
        else:
            found = decoder.decode_available_symbols(rans.Tables(part.tables), part.rows)
        assert np.array_equal(found, part.values[: len(found)])
        assert decoder.state == state
        if len(found) < len(part.values):
            one_more = slice(len(found) + 1)
            more = (
                part._replace(rows=part.rows[one_more])
                if part.p1 is None
                else part._replace(p1=part.p1[one_more])
            )
            with pytest.raises(TruncatedError):
                more.decode(decoder)
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == 400
    assert len(set(counts)) > 20


@both
def test_a_decoder_can_be_set_back(impl: str) -> None:
    first, second = (symbols(np.random.default_rng(seed), 60) for seed in (1, 2))
    decoder = rans.Decoder(encode([first, second], 4, impl), 4, implementation=impl)
    first.decode(decoder)
    state = decoder.state
    second.decode(decoder)
    decoder.finish()
    decoder.state = state
    assert np.array_equal(second.decode(decoder), second.values)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), lanes=st.sampled_from(LANES), seed=st.integers(0, 99))
def test_garbage_gives_symbols_or_a_stream_error(data: bytes, lanes: int, seed: int) -> None:
    """The same of both in every implementation; and what ends well is the only such stream."""
    parts = mixed(np.random.default_rng(seed), lanes)
    outcomes: list[Any] = []
    for impl in rans._BACKENDS:
        try:
            decoder = rans.Decoder(data, lanes, implementation=impl)
            got = [part._replace(values=part.decode(decoder)) for part in parts]
            assert all(
                len(new.values) == len(old.values) for new, old in zip(got, parts, strict=True)
            )
            joined(got)  # refuses a value that has no interval
            outcomes.append([part.values.tolist() for part in got])
            decoder.finish()
            assert encode(got, lanes, impl) == data
        except StreamError as error:
            outcomes.append(repr(error))
    assert all(
        outcome == outcomes[0] for outcome in outcomes[:: len(outcomes) // len(rans._BACKENDS)]
    )
