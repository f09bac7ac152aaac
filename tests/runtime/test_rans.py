"""The entropy coder: both implementations against a scalar reference, damage and abuse."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import CorruptError, StreamError, TruncatedError, UsageError

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


# ---- Wrong arguments are refused ------------------------------------------------------------

U8, U16, U32 = np.uint8, np.uint16, np.uint32
ONE = np.ones(1, U16)
HALVES = np.array([[0, 32768, 65536]], U32)
STREAM = rans.encode(ONE, ONE, [1], 1, implementation="numpy")


@pytest.mark.parametrize(
    "arguments",
    [
        (ONE.astype(np.int64), ONE, [1], 1),
        (ONE, ONE.astype(">u2" if sys.byteorder == "little" else "<u2"), [1], 1),
        (ONE, [1], [1], 1),
        (ONE[None], ONE[None], [1], 1),
        (ONE, np.ones(2, U16), [1], 1),
        (ONE, np.zeros(1, U16), [1], 1),
        (np.array([40000], U16), np.array([25537], U16), [1], 1),
        (ONE, ONE, [], 1),
        (ONE, ONE, [2], 1),
        (ONE, ONE, [2, -1], 1),
        (ONE, ONE, [1.0], 1),
        (ONE, ONE, [1], 0),
        (ONE, ONE, [1], 3),
        (ONE, ONE, [1], 128),
        (ONE, ONE, [1], -1),
    ],
)
def test_encode_refuses(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match="; "):
        rans.encode(*arguments)


@pytest.mark.parametrize(
    ("values", "p1"),
    [
        (np.ones(1, U8), np.zeros(1, U16)),
        (np.full(1, 2, U8), ONE),
        (np.ones(2, U8), ONE),
        (np.ones(1, np.bool_), ONE),
        (np.ones(1, U8), np.ones(1, np.float32)),
    ],
)
def test_bit_intervals_refuses(values: Any, p1: Any) -> None:
    with pytest.raises(UsageError, match="; "):
        rans.bit_intervals(values, p1)


@pytest.mark.parametrize(
    ("values", "tables", "rows"),
    [
        (np.full(1, 2, U8), HALVES, np.zeros(1, U16)),
        (np.ones(1, U8), HALVES, np.ones(1, U16)),
        (np.ones(1, U8), HALVES, np.full(1, -1, np.intp)),
        (np.ones(1, U8), HALVES, np.zeros(2, U16)),
        (np.ones(1, U8), HALVES, np.zeros(1, np.float64)),
        (np.ones(1, U8), HALVES.astype(np.int64), np.zeros(1, U16)),
        (np.ones(1, U8), HALVES[0], np.zeros(1, U16)),
        (np.ones(1, U8), HALVES[:0], np.zeros(1, U16)),
        (np.ones(1, U8), np.array([[0, 9, 9, 65536]], U32), np.zeros(1, U16)),
        (np.ones(1, U8), np.array([[0, 9, 8, 65536]], U32), np.zeros(1, U16)),
        (np.ones(1, U8), np.array([[1, 9, 65536]], U32), np.zeros(1, U16)),
        (np.ones(1, U8), np.array([[0, 9, 65535]], U32), np.zeros(1, U16)),
        (np.zeros(1, U8), np.array([[0, 65536]], U32), np.zeros(1, U16)),
        (np.ones(1, U8), np.linspace(0, 65536, 258).astype(U32)[None], np.zeros(1, U16)),
    ],
)
def test_symbol_intervals_refuses(values: Any, tables: Any, rows: Any) -> None:
    with pytest.raises(UsageError, match="; "):
        rans.symbol_intervals(values, tables, rows)


def test_decoder_refuses() -> None:
    with pytest.raises(UsageError, match="power of two"):
        rans.Decoder(STREAM, 5)
    with pytest.raises(UsageError, match="not bytes"):
        rans.Decoder(bytearray(STREAM), 1)
    with pytest.raises(UsageError, match="no coder 'fortran'"):
        rans.Decoder(STREAM, 1, implementation="fortran")
    with pytest.raises(UsageError, match="p1 holds a 0"):
        rans.Decoder(STREAM, 1).decode_bits(np.zeros(1, U16))
    with pytest.raises(UsageError, match="leaves the 1 tables"):
        rans.Decoder(STREAM, 1).decode_symbols(HALVES, ONE)


STATE = np.array([1 << 24], np.uint64).tobytes()
WORDS = STREAM[5:]
I64_1 = np.ones(1, np.int64).tobytes()
C_ENCODE = [b"\1\0", b"\1\0", I64_1, 1]
C_BITS = [WORDS, 0, STATE, b"\1\0"]
C_SYMBOLS = [WORDS, 0, STATE, HALVES.tobytes(), 3, b"\0\0\0\0"]
HOSTILE = [
    *[("encode", C_ENCODE, 3, lanes) for lanes in (0, -1, 3, 65, 128, 2**31 - 1)],
    *[("encode", C_ENCODE, 0, starts) for starts in (b"", b"\1", b"\1\0\1", b"\xff\xff\xff\xff")],
    *[("encode", C_ENCODE, 1, freqs) for freqs in (b"", b"\0\0", b"\1\0\1\0")],
    ("encode", [b"\xff\xff", *C_ENCODE[1:]], 1, b"\2\0" if sys.byteorder == "little" else b"\0\2"),
    *[
        ("encode", C_ENCODE, 2, np.array(sizes, np.int64).tobytes())
        for sizes in ([], [0], [2], [-1], [2, -1], [-(2**63), 1], [2**63 - 1, 2**63 - 1, 3])
    ],
    ("encode", C_ENCODE, 2, I64_1[:-1]),
    ("encode", C_ENCODE, 0, bytearray(2)),
    ("encode", C_ENCODE, 1, np.ones(1, U16)),
    *[(name, good, 1, at) for name, good in (("decode_bits", C_BITS), ("decode_symbols", C_SYMBOLS))
      for at in (-1, 2, sys.maxsize, -sys.maxsize - 1)],
    *[("decode_bits", C_BITS, 2, states) for states in (b"", STATE[:7], STATE * 3)],
    *[
        (name, good, 2, np.array([1 << 24, state], np.uint64).tobytes())
        for name, good in (("decode_bits", C_BITS), ("decode_symbols", C_SYMBOLS))
        for state in (0, (1 << 24) - 1, 1 << 40, (1 << 64) - 1)
    ],
    *[("decode_bits", C_BITS, 3, p1) for p1 in (b"\0\0", b"\1", b"\1\0\0\0", "text")],
    ("decode_bits", C_BITS, 0, memoryview(WORDS)),
    *[("decode_symbols", C_SYMBOLS, 4, width) for width in (-(2**62), -3, 0, 1, 2, 258, 2**62)],
    *[
        ("decode_symbols", C_SYMBOLS, 3, np.array(table, U32).tobytes())
        for table in ([0, 1], [0, 2, 1], [1, 2, 65536], [0, 0, 65536], [0, 2**32 - 1, 65536], [])
    ],
    *[("decode_symbols", C_SYMBOLS, 5, rows) for rows in (b"\1\0\0\0", b"\xff" * 4, b"\0" * 5)],
]  # fmt: skip


@needs_c
@pytest.mark.parametrize(("name", "good", "position", "bad"), HOSTILE)
def test_c_functions_refuse_hostile_arguments(
    name: str, good: list[Any], position: int, bad: Any
) -> None:
    function = getattr(rans._BACKENDS["c"], name)
    function(*good)
    with pytest.raises((ValueError, TypeError)):
        function(*good[:position], bad, *good[position + 1 :])


@needs_c
def test_c_functions_report_the_end_of_the_stream() -> None:
    halves = np.full(40, 32768, U16).tobytes()  # 5 bytes, and there are 2
    backend = rans._BACKENDS["c"]
    assert backend.decode_bits(WORDS, 1, STATE, b"")[1:] == (1, STATE)
    with pytest.raises(EOFError):
        backend.decode_bits(WORDS, 0, STATE, halves)


# ---- Both ways to run it --------------------------------------------------------------------

ROUND_TRIP = """
import sys
if sys.argv[1] == "blocked":
    sys.modules["cwic._rans"] = None
import numpy as np
from cwic import rans
bits, p1 = np.arange(50, dtype=np.uint8) % 2, np.full(50, 9000, np.uint16)
decoder = rans.Decoder(rans.encode(*rans.bit_intervals(bits, p1), [50], 8), 8)
assert (decoder.decode_bits(p1) == bits).all()
decoder.finish()
print(rans.implementation(), *sorted(rans._BACKENDS))
"""


def run_python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_works_without_the_extension() -> None:
    assert run_python(ROUND_TRIP, "blocked", CWIC_RANS="") == "numpy numpy"


@needs_c
def test_the_environment_forces_numpy() -> None:
    assert run_python(ROUND_TRIP, "", CWIC_RANS="") == "c c numpy"
    assert run_python(ROUND_TRIP, "", CWIC_RANS="numpy") == "numpy c numpy"


SANITIZED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("cwic._rans", sys.argv[1])
sys.modules["cwic._rans"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["cwic._rans"])
import numpy as np
from cwic import rans
from cwic.errors import StreamError
rng = np.random.default_rng(5)
tables = np.array([[0, 1, 1, 9, 65536], [0, 20000, 40000, 65535, 65536]], np.uint32)
endings = [0, 0]
for turn in range(1500):
    lanes = 1 << turn % 7
    p1 = rng.integers(1, 65536, int(rng.integers(0, 200))).astype(np.uint16)
    rows = rng.integers(0, 2, int(rng.integers(0, 200))).astype(np.uint16)
    bits = rng.integers(0, 2, len(p1)).astype(np.uint8)
    symbols = rng.choice(np.array([0, 2, 3], np.uint8), len(rows))
    parts = [rans.bit_intervals(bits, p1), rans.symbol_intervals(symbols, tables, rows)]
    starts, freqs = (np.concatenate(pair) for pair in zip(*parts))
    stream = rans.encode(starts, freqs, [len(p1), len(rows)], lanes, implementation="c")
    decoder = rans.Decoder(stream, lanes, implementation="c")
    assert (decoder.decode_bits(p1) == bits).all()
    assert (decoder.decode_symbols(tables, rows) == symbols).all()
    decoder.finish()
    head = rng.integers(1 << 24, 1 << 40, lanes).astype("<i8").view(np.uint8)
    garbage = head.reshape(lanes, 8)[:, :5].tobytes() + rng.bytes(2 * int(rng.integers(0, 9)))
    try:
        decoder = rans.Decoder(garbage, lanes, implementation="c")
        decoder.decode_bits(p1)
        decoder.decode_symbols(tables, rows)
        endings[0] += 1
    except StreamError:
        endings[1] += 1
assert min(endings) > 100, endings
full = rans.encode(np.zeros(9, np.uint16), np.ones(9, np.uint16), [9], 1, implementation="c")
assert len(full) == 5 + 2 * 9  # a word each: the most there can be
backend = rans._BACKENDS["c"]
for name, good, position, bad in eval(sys.argv[2]):
    try:
        getattr(backend, name)(*good[:position], bad, *good[position + 1:])
    except (ValueError, TypeError):
        continue
    raise SystemExit(f"{name} took {bad!r} at {position}")
print("done")
"""


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Both sanitizers watch the C code; with `malloc` they also see past the end of an array."""
    gcc = shutil.which("gcc")
    include = sysconfig.get_path("include")
    if gcc is None or not (Path(include) / "Python.h").exists():
        pytest.skip("gcc or the headers of Python are missing")
    asked = [gcc, "-print-file-name=libasan.so"]
    libasan = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(libasan).is_absolute():
        pytest.skip("gcc has no libasan")
    module = tmp_path / "_rans.abi3.so"
    source = Path(__file__).parents[2] / "runtime" / "cwic" / "_rans.c"
    flags = ["-Wall", "-Wextra", "-Werror", "-DPy_LIMITED_API=0x030A0000", f"-I{include}"]
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        [gcc, *flags, *checks, "-shared", "-fPIC", str(source), "-o", str(module)], check=True
    )
    plain = [case for case in HOSTILE if isinstance(case[3], bytes | int)]
    # Without its preload the module would not load, so that a pass means that it was watched.
    out = run_python(
        SANITIZED,
        str(module),
        repr(plain),
        LD_PRELOAD=libasan,
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
    )
    assert out == "done"
