"""Running commands, with failures of one line; files that appear whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CrossDecodeError", "appears_whole", "run"]

_TIMEOUT_S = 1800
# Nothing of the caller's Python may reach the environments that are compared.
_DROPPED = ("PYTHON", "VIRTUAL_ENV", "CWIC_", "QEMU_", "OMP_", "OPENBLAS_")


class CrossDecodeError(Exception):
    """One line that ends with its remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, stdin: str = ""
) -> str:
    """Standard output of a command.

    Args:
        command: program and arguments.
        env: variables to set over the caller's, without those that steer Python or qemu.
        stdin: its standard input.

    Raises:
        CrossDecodeError: it failed, with its last line, or took longer than half an hour.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(  # noqa: S603 - programs that this script names itself
            words,
            env={**kept, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CrossDecodeError(f"{' '.join(words[:4])} does not run ({exc}); run it alone") from exc
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        last = said[-1] if said else f"status {done.returncode}"
        raise CrossDecodeError(f"{' '.join(words)} failed ({last}); run it alone to see why")
    return done.stdout


@contextmanager
def appears_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, renamed to it when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield made
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
