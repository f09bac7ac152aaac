"""The entropy coder: wrong arguments, hostile calls of the C functions, and both ways to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cwic import rans
from cwic.errors import UsageError

needs_c = pytest.mark.skipif("c" not in rans._BACKENDS, reason="cwic._rans is not built")

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
