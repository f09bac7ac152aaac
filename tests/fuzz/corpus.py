"""Writes the seed corpora of both harnesses: ``python -m tests.fuzz.corpus FOLDER``.

``FOLDER/streams`` are inputs of ``fuzz_stream.py``: the golden streams, valid streams of the
tiny models, and the same cut and made odd. ``FOLDER/rans`` are inputs of ``fuzz_rans.c``. Both
are the same on every run and machine.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from cwic import rans
from cwic.codec import Codec

from .framing import Frame, number
from .tiny import coded, drawn, tiny_codecs

__all__ = ["main", "rans_inputs", "streams"]

GOLDEN = Path(__file__).resolve().parents[1] / "runtime" / "golden"
_SHAPES = ((1, 1, 16, 1), (3, 5, 16, 1), (17, 33, 16, 2), (40, 2, 32, 64), (48, 60, 64, 4))
"""Rows, columns, tile and lanes; the last has more than a chunk of codes."""
EXTRAS = (b"\0profile", b"\x80", b"\1" + zlib.compress(b"EXIF" * 9), b"\0<x:xmpmeta/>")
"""Of all kinds: ICC profile, a constant alpha, EXIF, XMP."""


def streams() -> dict[str, bytes]:
    """Inputs of ``fuzz_stream.py`` by name."""
    found = {}
    for path in sorted(GOLDEN.glob("*.hex")):
        text = path.read_text(encoding="ascii")
        found[path.stem] = bytes.fromhex(
            "".join(line.partition("#")[0] for line in text.split("\n"))
        )
    with tempfile.TemporaryDirectory() as folder:
        codecs = tiny_codecs(Path(folder))
        for kind, codec in codecs.items():
            found |= {f"{kind}-{name}": data for name, data in _of(codec).items()}
    return found


def _of(codec: Codec) -> dict[str, bytes]:
    """Streams of one model, and the same cut and made odd."""
    frames = {
        f"{rows}x{columns}-tile{tile}-lanes{lanes}": coded(
            codec, *drawn(codec, rows, columns, seed), tile=tile, lanes=lanes
        )
        for seed, (rows, columns, tile, lanes) in enumerate(_SHAPES)
    }
    frames["progressive"] = coded(
        codec, *drawn(codec, 17, 33, len(_SHAPES)), tile=16, lanes=2, progressive=True
    )
    found = {name: frame.to_bytes() for name, frame in frames.items()}
    several, chunked = (frames[name] for name in ("17x33-tile16-lanes2", "48x60-tile64-lanes4"))
    for name, frame in (("several", several), ("chunked", chunked)):
        data, head = frame.to_bytes(), len(frame.header)
        found |= {f"{name}-cut-{at}": data[:at] for at in (9, head, (head + len(data)) // 2)}
        found[f"{name}-cut-last"] = data[:-1]
    found |= {f"odd-{name}": frame.to_bytes() for name, frame in _odd(several).items()}
    found["odd-byte-behind"] = several.to_bytes() + b"\0"
    dressed = replace(several, flags=0x1F, extras=EXTRAS)
    found |= {"extras": dressed.to_bytes(), "extras-cut": dressed.to_bytes()[:-20]}
    for place in range(4):
        wrong = (*EXTRAS[:place], b"\1?", *EXTRAS[place + 1 :])
        found[f"odd-extras-{place}"] = replace(dressed, extras=wrong).to_bytes()
    return found


def _odd(frame: Frame) -> dict[str, Frame]:
    """Streams with right checksums over something wrong."""
    (levels, codes), *others = frame.tiles
    return {
        "version": replace(frame, version=1),
        "coder": replace(frame, coder=0xFF),
        "quality": replace(frame, quality=0),
        "long-number": replace(frame, width=number(264, 3)),
        "side-0": replace(frame, width=0),
        "large": replace(frame, width=60_000, height=60_000, coder=7 << 3),
        "swapped": replace(frame, tiles=((codes, levels), *others)),
        "empty": replace(frame, tiles=((b"", b""), *others)),
        "short": replace(frame, tiles=((levels, codes[:-2]), *others)),
        "long": replace(frame, tiles=((levels + b"\0\0", codes), *others)),
        "reversed": replace(frame, tiles=(*others, (levels, codes))),
    }


def rans_inputs() -> dict[str, bytes]:
    """Inputs of ``fuzz_rans.c`` by name; that file has their form."""
    found = {}
    for lanes_log2, symbols, count, sizes in (
        (0, 2, 1, (5,)),
        (1, 5, 2, (0, 30, 7)),
        (3, 17, 3, (1, 64, 300, 2)),
        (6, 256, 3, (200, 65, 400)),
    ):
        rng = np.random.default_rng([lanes_log2, symbols])
        tables = np.zeros((count, symbols + 1), np.uint32)
        tables[:, 1:-1] = np.sort(rng.integers(1, 65536, (count, symbols - 1)), axis=1)
        tables[:, -1] = 65536
        head = bytes([lanes_log2, symbols - 2, count - 1])
        head += tables[:, 1:-1].astype("<u2").tobytes() + bytes([len(sizes)])
        intervals = []
        for turn, size in enumerate(sizes):
            by_table = turn % 2
            head += (size << 1 | by_table).to_bytes(2, "little")
            if by_table:
                rows = rng.integers(0, count, size)
                drawn_at = rng.integers(0, 65536, size)
                values = ((tables[rows, 1:] <= drawn_at[:, None]).sum(1)).astype(np.uint8)
                head += np.stack([rows, values], 1).astype(np.uint8).tobytes()
                intervals.append(rans.symbol_intervals(values, tables, rows))
            else:
                p1 = rng.integers(1, 65536, size).astype(np.uint16)
                values = (rng.integers(0, 65536, size) < p1).astype(np.uint8)
                pairs = zip(p1.tolist(), values.tolist(), strict=True)
                head += b"".join(p.to_bytes(2, "little") + bytes([bit]) for p, bit in pairs)
                intervals.append(rans.bit_intervals(values, p1))
        starts, freqs = (np.concatenate(part) for part in zip(*intervals, strict=True))
        stream = rans.encode(starts, freqs, sizes, 1 << lanes_log2)
        name = f"lanes{1 << lanes_log2}-symbols{symbols}"
        found[f"round-trip-{name}"] = b"\0" + head
        found[f"stream-{name}"] = b"\1" + head + stream
        found[f"cut-{name}"] = b"\1" + head + stream[:-2]
    return found | _arguments()


def _arguments() -> dict[str, bytes]:
    """Calls of the three functions, valid and not: which, four `bytes`, two numbers plus 3."""

    def u64(*values: int) -> bytes:
        return np.array(values, np.int64).tobytes()

    one, low = u64(1), u64(1 << 24)
    halves, falling, open_end = (
        np.array(table, "<u4").tobytes()
        for table in ((0, 32768, 65536), (0, 40000, 30000, 65536), (0, 9, 80))
    )
    calls = {
        "encode": (0, (b"\1\0", b"\1\0", one, b""), (1, 0)),
        "encode-lanes-128": (0, (b"\1\0", b"\1\0", one, b""), (128, 0)),
        "encode-sizes": (0, (b"\1\0", b"\1\0", u64(2, -1), b""), (1, 0)),
        "bits": (1, (b"\0\0", low, b"\1\0", b""), (0, 0)),
        "bits-lanes-128": (1, (b"\0\0", low * 128, b"\1\0", b""), (0, 0)),
        "bits-state": (1, (b"\0\0", u64(1 << 62), b"\1\0", b""), (0, 0)),
        "bits-offset": (1, (b"\0\0", low, b"\1\0", b""), (2, 0)),
        "symbols": (2, (b"\0\0", low, halves, b"\0\0\0\0"), (0, 3)),
        "symbols-falling": (2, (b"\0\0", u64(1 << 24 | 50000), falling, b"\0\0\0\0"), (0, 4)),
        "symbols-open-end": (2, (b"\0\0", u64(1 << 24 | 50000), open_end, b"\0\0\0\0"), (0, 3)),
        "symbols-row": (2, (b"\0\0", low, halves, b"\1\0\0\0"), (0, 3)),
    }
    return {
        f"call-{name}": bytes([2, which])
        + b"".join(len(part).to_bytes(2, "little") + part for part in parts)
        + bytes(number + 3 for number in numbers)
        for name, (which, parts, numbers) in calls.items()
    }


def main(folder: Path) -> None:
    """Write both corpora."""
    for kind, inputs in (("streams", streams()), ("rans", rans_inputs())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (folder / kind / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
