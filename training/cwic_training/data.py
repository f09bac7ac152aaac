"""Training crops and validation pictures, from any folder of photographs.

A crop is a pure function of (seed, sample number), so that a resumed run sees exactly the
crops that an uninterrupted one would have seen, whatever the number of workers and however
many pictures fit into memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cwic.cores import usable_cores
from cwic.errors import CwicError, TrainingError
from cwic.image import open_rgb
from cwic_training.config import STRIDE

__all__ = ["CropSampler", "RandomCrops", "ValidationPictures", "find_pictures", "open_centre"]

_SMALLEST_SCALE = 0.5

_Picture = NDArray[np.uint8]


def find_pictures(pattern: str, option: str) -> list[Path]:
    """Files that match a glob (``**`` crosses folders, ``~`` is home), sorted by name.

    Args:
        pattern: the glob.
        option: how the user spelled the option, for the message.

    Raises:
        TrainingError: nothing matches.
    """
    expanded = os.path.expanduser(pattern)  # noqa: PTH111 - a pattern, not a path
    paths = sorted(Path(p) for p in glob.glob(expanded, recursive=True))  # noqa: PTH207
    paths = [p for p in paths if p.is_file()]
    if not paths:
        raise TrainingError(
            f"{option} {pattern!r} matches no file; quote the pattern and check the folder"
        )
    return paths


def open_centre(path: Path, largest_px: int) -> _Picture:
    """The centre of a picture: sides multiples of 8 and at most ``largest_px``, [H, W, 3].

    Raises:
        TrainingError: unreadable, or smaller than 8 pixels.
    """
    picture = _read(path, STRIDE, "leave it out of the glob")
    height, width = (min(side, largest_px) // STRIDE * STRIDE for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width].copy()


def _read(path: Path, smallest_px: int, remedy: str) -> _Picture:
    try:
        picture = open_rgb(path)
    except CwicError as exc:
        raise TrainingError(f"{exc}, or leave it out of the glob") from exc
    height, width = picture.shape[:2]
    if min(height, width) < smallest_px:
        raise TrainingError(
            f"{path} is {width}x{height} pixels, too small for {smallest_px}x{smallest_px}; "
            f"{remedy}"
        )
    return picture


class RandomCrops(Dataset[Tensor]):
    """Random crops with flips; half of them from a copy shrunk by 0.5 to 1.

    Shrinking hides the compression artefacts of the source files. Every file is decoded
    once at the start, which finds the unreadable ones. As many as fit into ``memory_bytes``
    are kept, both sizes; a crop of another reads, and for the copy shrinks, its file again.

    Args:
        paths: picture files.
        crop: side of a crop in pixels, a multiple of 8.
        seed: every crop is a function of this and its sample number.
        memory_bytes: how much decoded pictures may take; None means half of the free memory.

    Raises:
        TrainingError: a file is unreadable or smaller than the crop; the message names it.
    """

    def __init__(
        self, paths: Sequence[Path], crop: int, seed: int, memory_bytes: int | None = None
    ) -> None:
        self.paths, self.crop, self.seed = list(paths), crop, seed
        self.kept = self._load(_free_memory() // 2 if memory_bytes is None else memory_bytes)

    def _load(self, budget: int) -> dict[int, tuple[_Picture, _Picture]]:
        """Check every file and keep the first ones, whole and shrunk."""
        kept: dict[int, tuple[_Picture, _Picture]] = {}
        used, full = 0, False

        def load(index: int) -> tuple[_Picture, _Picture] | None:
            picture = self._open(index)
            return None if full else (picture, self._shrunk(picture, index))

        with ThreadPoolExecutor(usable_cores()) as pool:
            for index, pair in enumerate(pool.map(load, range(len(self.paths)))):
                used += sum(picture.nbytes for picture in pair or ())
                full = full or used > budget
                if pair is not None and not full:
                    kept[index] = pair
        return kept

    def _open(self, index: int) -> _Picture:
        return _read(self.paths[index], self.crop, "remove it or choose a smaller --crop")

    def _shrunk(self, picture: _Picture, index: int) -> _Picture:
        """The one shrunk copy of picture ``index``, no side below the crop."""
        height, width = picture.shape[:2]
        factor = float(np.random.default_rng([self.seed, index]).uniform(_SMALLEST_SCALE, 1))
        factor = max(factor, self.crop / min(height, width))
        size = (max(self.crop, round(width * factor)), max(self.crop, round(height * factor)))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))

    def _picture(self, index: int, shrunk: bool) -> _Picture:
        if index in self.kept:
            return self.kept[index][shrunk]
        picture = self._open(index)
        return self._shrunk(picture, index) if shrunk else picture

    def __getitem__(self, sample: int) -> Tensor:
        """Crop number ``sample`` (any non-negative integer), uint8 [3, crop, crop]."""
        rng = np.random.default_rng([self.seed, 1, sample])
        index = int(rng.integers(len(self.paths)))
        picture = self._picture(index, shrunk=bool(rng.integers(2)))
        top, left = (int(rng.integers(side - self.crop + 1)) for side in picture.shape[:2])
        cut = picture[top : top + self.crop, left : left + self.crop]
        if rng.integers(2):
            cut = cut[:, ::-1]
        if rng.integers(2):
            cut = cut[::-1]
        return torch.from_numpy(cut.copy()).permute(2, 0, 1)


class CropSampler(Sampler[int]):
    """Sample numbers ``first`` to ``last - 1``.

    Its length counts from zero, as the trainer does when it resumes in the middle.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last


class ValidationPictures(Dataset[Tensor]):
    """Centres of whole pictures, all in memory: at most 0.8 MB each at 512 pixels a side."""

    def __init__(self, paths: Sequence[Path], largest_px: int = 512) -> None:
        self.pictures = [open_centre(path, largest_px) for path in paths]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        """Picture ``index`` as uint8 [3, H, W]."""
        return torch.from_numpy(self.pictures[index]).permute(2, 0, 1)


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
