"""One side of a cross-decode: encodes or decodes in the Python that runs it, and prints hashes.

    python worker.py encode|decode THREADS < job.json > result.json

It needs only `cwic[cpu]` and calls only what is public. `encode` takes {streams, items: [{name,
pictures, box, qualities, progressive}]}, the last two lists of qualities, and writes each stream
under its hash into the folder `streams`; `decode` takes {pixels, streams: [{path, width_px,
height_px, pixels}]}, reads codes and levels, writes them again and, where `pixels` is true, writes
the picture under its hash into `pixels`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

import cwic
from cwic import rans
from cwic.container import Stream

# The scale does not change the codes; it must only be the same on every side.
SCALE = 0.5
PACKAGES = ("numpy", "onnxruntime", "pillow", "safetensors")


def hashed(array: np.ndarray[Any, Any]) -> str:
    """SHA-256 of an array with its type and shape."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def use_threads(threads: int) -> None:
    """Give every onnxruntime session this many threads: it heeds no environment variable."""
    session = onnxruntime.InferenceSession

    def with_threads(model: Any, sess_options: Any = None, *args: Any, **more: Any) -> Any:
        options = onnxruntime.SessionOptions() if sess_options is None else sess_options
        options.intra_op_num_threads = threads
        # There may be fewer processors, and waiting threads would take their time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return session(model, options, *args, **more)

    onnxruntime.InferenceSession = with_threads


def side_by_side(paths: list[str]) -> Image.Image:
    """One picture of several, from left to right."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return Image.fromarray(np.concatenate(pictures, axis=1))


def encode(codec: cwic.Codec, job: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for item in job["items"]:
        picture = side_by_side(item["pictures"]).crop(item["box"])
        plain = [(quality, False) for quality in item["qualities"]]
        for quality, progressive in plain + [(quality, True) for quality in item["progressive"]]:
            encoded = codec.encode_detailed(picture, quality=quality, progressive=progressive)
            sha256 = hashlib.sha256(encoded.data).hexdigest()
            Path(job["streams"], sha256).write_bytes(encoded.data)
            made.append(
                {
                    "item": item["name"],
                    "quality": f"{quality}{', progressive' * progressive}",
                    "width_px": picture.width,
                    "height_px": picture.height,
                    "stream": sha256,
                    "size_bytes": len(encoded.data),
                    "levels": hashed(encoded.levels),
                }
            )
    return made


def decode(codec: cwic.Codec, job: dict[str, Any]) -> list[dict[str, Any]]:
    read = []
    for stream in job["streams"]:
        data = Path(stream["path"]).read_bytes()
        codes, levels = codec.read_codes(Stream.from_bytes(data))
        written = codec.write_stream(codes, levels, stream["width_px"], stream["height_px"], SCALE)
        entry = {
            "stream": hashlib.sha256(data).hexdigest(),
            "codes": hashed(codes),
            "levels": hashed(levels),
            "written": hashlib.sha256(written).hexdigest(),
        }
        if stream["pixels"]:
            picture = np.asarray(codec.decode(data))
            entry["pixels"] = hashed(picture)
            Path(job["pixels"], entry["pixels"]).write_bytes(picture.tobytes())
        read.append(entry)
    return read


def about() -> dict[str, Any]:
    """What ran: versions, the coder, and the threads that the process holds at its end."""
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cwic": cwic.__version__,
        **{name: version(name) for name in PACKAGES},
        "coder": rans.implementation(),
        "cpu_time_s": round(time.process_time(), 1),
        "threads_of_process": sum(1 for _ in Path("/proc/self/task").iterdir()),
    }


def main() -> None:
    work: Callable[[cwic.Codec, dict[str, Any]], list[dict[str, Any]]]
    work = {"encode": encode, "decode": decode}[sys.argv[1]]
    threads = int(sys.argv[2])
    use_threads(threads)
    codec = cwic.load(backend="cpu")
    codec.coder.threads = threads  # tiles at a time
    results = work(codec, json.load(sys.stdin))
    json.dump({"results": results, "about": about()}, sys.stdout)  # its threads live with codec


if __name__ == "__main__":
    main()
