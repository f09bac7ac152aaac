"""Training crops and validation pictures, from any folder of photographs.

A crop is a pure function of (seed, sample number), so that a resumed run sees exactly the
crops that an uninterrupted one would have seen, whatever the number of workers.
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

from cwic.errors import CwicError, TrainingError
from cwic.image import open_rgb
from cwic_training.model import STRIDE

__all__ = ["CropSampler", "RandomCrops", "ValidationPictures", "find_pictures"]

_SMALLEST_SCALE = 0.5


def find_pictures(pattern: str, option: str) -> list[Path]:
    """Files that match a glob (``**`` crosses folders), sorted by name.

    Args:
        pattern: the glob.
        option: how the user spelled the option, for the message.

    Raises:
        TrainingError: nothing matches.
    """
    paths = sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = [p for p in paths if p.is_file()]
    if not paths:
        raise TrainingError(
            f"{option} {pattern!r} matches no file; quote the pattern and check the folder"
        )
    return paths


def _read(path: Path, smallest: int) -> NDArray[np.uint8]:
    try:
        picture = open_rgb(path)
    except CwicError as exc:
        raise TrainingError(f"{exc} (or leave it out of the glob)") from exc
    height, width = picture.shape[:2]
    if min(height, width) < smallest:
        raise TrainingError(
            f"{path} is {width}x{height} pixels, smaller than the crop of {smallest}; "
            "remove it or choose a smaller --crop"
        )
    return picture


def _shrunk(picture: NDArray[np.uint8], factor: float, smallest: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = max(factor, smallest / min(height, width))
    size = (max(smallest, round(width * factor)), max(smallest, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


class RandomCrops(Dataset[Tensor]):
    """Random crops with flips; half of them from a copy shrunk by 0.5 to 1.

    Shrinking hides the compression artefacts of the source files. Pictures are decoded
    once and kept when they fit into ``memory_bytes``, else read again for every crop.

    Args:
        paths: picture files; each is opened once to check it.
        crop: side of a crop in pixels, a multiple of 8.
        seed: every crop is a function of this and its sample number.
        memory_bytes: how much decoded pictures may take; None means half of the free memory.

    Raises:
        TrainingError: a file is unreadable or smaller than the crop; the message names it.
    """

    def __init__(
        self, paths: Sequence[Path], crop: int, seed: int, memory_bytes: int | None = None
    ) -> None:
        if crop <= 0 or crop % STRIDE:
            raise TrainingError(f"crop {crop} is not a positive multiple of {STRIDE}; use 128")
        self.paths, self.crop, self.seed = list(paths), crop, seed
        self.budget = _free_memory() // 2 if memory_bytes is None else memory_bytes
        self.kept: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] | None = self._load()

    def _load(self) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] | None:
        kept: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] | None = []
        used = 0
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for pair in pool.map(self._pair, range(len(self.paths))):
                used += sum(a.nbytes for a in pair)
                if used > self.budget:
                    kept = None
                if kept is not None:
                    kept.append(pair)
        return kept

    def _pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        picture = _read(self.paths[index], self.crop)
        factor = np.random.default_rng([self.seed, index]).uniform(_SMALLEST_SCALE, 1)
        return picture, _shrunk(picture, float(factor), self.crop)

    def __getitem__(self, sample: int) -> Tensor:
        """Crop number ``sample`` (any non-negative integer), uint8 [3, crop, crop]."""
        rng = np.random.default_rng([self.seed, 1, sample])
        index = int(rng.integers(len(self.paths)))
        pair = self._pair(index) if self.kept is None else self.kept[index]
        picture = pair[int(rng.integers(2))]
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
    """Whole pictures, centre-cropped to multiples of 8 and at most ``largest`` a side."""

    def __init__(self, paths: Sequence[Path], largest: int = 512) -> None:
        self.pictures = [self._centre(_read(p, STRIDE), largest) for p in paths]

    @staticmethod
    def _centre(picture: NDArray[np.uint8], largest: int) -> NDArray[np.uint8]:
        height, width = (min(side, largest) // STRIDE * STRIDE for side in picture.shape[:2])
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        return np.ascontiguousarray(picture[top : top + height, left : left + width])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        """Picture ``index`` as uint8 [3, H, W]."""
        return torch.from_numpy(self.pictures[index]).permute(2, 0, 1)


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
