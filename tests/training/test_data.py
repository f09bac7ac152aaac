"""Training data: crops by number, the memory budget, and one line for every bad file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from cwic.errors import TrainingError
from cwic_training import data
from cwic_training.data import (
    CropSampler,
    RandomCrops,
    ValidationPictures,
    find_pictures,
    open_centre,
)


def crops(paths: list[Path], crop: int = 32, seed: int = 0, **options: Any) -> RandomCrops:
    return RandomCrops(paths, crop, seed, **options)


def first(dataset: RandomCrops, count: int = 24) -> torch.Tensor:
    return torch.stack([dataset[sample] for sample in range(count)])


def test_a_crop_is_a_function_of_seed_and_number(photos: Any) -> None:
    once, again = crops(photos.train_paths), crops(photos.train_paths)
    a = first(once)
    assert a.shape == (24, 3, 32, 32)
    assert a.dtype == torch.uint8
    assert torch.equal(a, torch.stack([again[sample] for sample in reversed(range(24))]).flip(0))
    assert len({crop.numpy().tobytes() for crop in a}) == 24
    assert not torch.equal(a, first(crops(photos.train_paths, seed=1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_deliver_the_samples_in_order(photos: Any, workers: int) -> None:
    dataset = crops(photos.train_paths)
    loader = DataLoader(dataset, batch_size=4, sampler=CropSampler(8, 24), num_workers=workers)
    assert torch.equal(torch.cat(list(loader)), first(dataset)[8:])


def test_a_sampler_counts_from_zero() -> None:
    sampler = CropSampler(6, 10)
    assert list(sampler) == [6, 7, 8, 9]
    assert len(sampler) == 10


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (130_000, 1), (None, 3)])
def test_the_memory_budget_changes_no_crop(photos: Any, budget: int | None, kept: int) -> None:
    """A detail of 160 x 128 and its smaller copy take 61 to 123 kB."""
    dataset = crops(photos.train_paths, memory_bytes=budget)
    assert len(dataset.kept) == kept
    sizes = [a.nbytes + b.nbytes for a, b in dataset.kept.values()]
    assert sum(sizes) <= (budget if budget is not None else 400_000)
    assert torch.equal(first(dataset), first(crops(photos.train_paths)))


def test_a_file_beyond_the_budget_is_read_when_needed(
    photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once to check it and once for each of its crops; one that is kept once only."""
    opened: list[str] = []
    inner: Callable[[Path], NDArray[np.uint8]] = data.open_rgb

    def spy(path: Path) -> NDArray[np.uint8]:
        opened.append(path.name)
        return inner(path)

    monkeypatch.setattr(data, "open_rgb", spy)
    dataset = crops(photos.train_paths, memory_bytes=130_000)
    names = [path.name for path in photos.train_paths]
    assert sorted(opened) == sorted(names)
    opened.clear()
    first(dataset)
    assert set(opened) == set(names[1:])
    assert len(opened) <= 24


def test_pictures_beyond_the_budget_are_only_checked(
    photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few that other threads have begun may still be shrunk, but by no means all."""
    shrunk: list[int] = []
    inner = RandomCrops._shrunk

    def spy(self: RandomCrops, picture: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        shrunk.append(index)
        return inner(self, picture, index)

    monkeypatch.setattr(RandomCrops, "_shrunk", spy)
    crops(photos.train_paths[:1] * 200, memory_bytes=0)
    assert len(shrunk) < 200


def test_crops_are_details_of_the_pictures(photos: Any) -> None:
    """With flips, and about half of them from the shrunk copy."""
    path = photos.train_paths[0]
    picture = np.asarray(Image.open(path))
    views = np.lib.stride_tricks.sliding_window_view(picture, (32, 32), axis=(0, 1))
    exact = {view.tobytes() for row in views for view in np.moveaxis(row, 1, -1)}
    unshrunk, flipped = 0, 0
    for crop in first(crops([path]), 60):
        plain = crop.permute(1, 2, 0).numpy()
        variants = [np.ascontiguousarray(plain[::y, ::x]) for y in (1, -1) for x in (1, -1)]
        found = [variant.tobytes() in exact for variant in variants]
        unshrunk += any(found)
        flipped += any(found[1:])
    assert 15 < unshrunk < 45
    assert 5 < flipped < unshrunk


@pytest.mark.parametrize("size", [(32, 32), (32, 200), (33, 40)])
def test_pictures_hardly_larger_than_the_crop(tmp_path: Path, photos: Any, size: Any) -> None:
    picture = Image.open(photos.train_paths[0]).resize(size)
    picture.save(tmp_path / "small.png")
    assert first(crops([tmp_path / "small.png"])).shape == (24, 3, 32, 32)


def save_as(picture: Image.Image, path: Path, mode: str) -> None:
    if mode == "I;16":
        wide = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(wide).save(path)
    elif mode == "RGBA":
        picture.putalpha(picture.convert("L"))
        picture.save(path)
    else:
        picture.convert(mode).save(path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "LA"])
def test_pictures_of_other_modes_are_accepted(tmp_path: Path, photos: Any, mode: str) -> None:
    with Image.open(photos.train_paths[0]) as opened:
        picture = opened.convert("RGB")
    path = tmp_path / "picture.png"
    save_as(picture.copy(), path, mode)
    assert Image.open(path).mode == mode
    assert first(crops([path])).float().std() > 5
    centre = open_centre(path, 64)
    assert (centre.shape, centre.dtype) == ((64, 64, 3), np.uint8)
    if mode == "I;16":
        grey = np.asarray(picture.convert("L"))[32:96, 48:112]
        assert np.array_equal(centre[..., 0], grey)


def truncated_jpeg(path: Path, source: Path) -> None:
    file = io.BytesIO()
    Image.open(source).save(file, "JPEG")
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


def text_file(path: Path, source: Path) -> None:
    path.write_text("a list of pictures\n")


def small_picture(path: Path, source: Path) -> None:
    Image.open(source).resize((160, 24)).save(path, "PNG")


def animation(path: Path, source: Path) -> None:
    picture = Image.open(source)
    picture.save(path, "GIF", save_all=True, append_images=[picture.rotate(90)])


def empty_file(path: Path, source: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (truncated_jpeg, "leave it out of the glob"),
        (text_file, "leave it out of the glob"),
        (animation, "leave it out of the glob"),
        (empty_file, "leave it out of the glob"),
        (small_picture, "smaller --crop"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    tmp_path: Path, photos: Any, make: Any, remedy: str, budget: int | None
) -> None:
    """Also when it comes after the budget is used up."""
    bad = tmp_path / "bad.png"
    make(bad, photos.train_paths[0])
    with pytest.raises(TrainingError, match=remedy) as caught:
        crops([*photos.train_paths, bad], memory_bytes=budget)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes_is_named(tmp_path: Path, photos: Any) -> None:
    path = tmp_path / "gone.png"
    path.write_bytes(photos.train_paths[0].read_bytes())
    dataset = crops([path], memory_bytes=0)
    path.unlink()
    with pytest.raises(TrainingError, match=r"gone\.png does not exist"):
        dataset[0]


@pytest.mark.parametrize("pattern", ["*.jpg", "missing/*", "", "train"])
def test_a_glob_without_files_is_named_in_one_line(photos: Any, pattern: str) -> None:
    whole = str(photos.folder / pattern) if pattern else ""
    with pytest.raises(TrainingError, match="--train-glob .* matches no file") as caught:
        find_pictures(whole, "--train-glob")
    assert repr(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_globs_cross_folders_in_order(photos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_pictures(str(photos.folder / "**" / "*.png"), "--train-glob")
    assert found == [*photos.train_paths, *photos.valid_paths]
    monkeypatch.setenv("HOME", str(photos.folder))
    assert find_pictures("~/train/*", "--train-glob") == photos.train_paths
    assert find_pictures(str(photos.folder / "*" / "*"), "--train-glob") == found  # no folders


@pytest.mark.parametrize(
    ("size", "largest", "shape"),
    [((160, 128), 512, (128, 160)), ((161, 135), 512, (128, 160)), ((160, 128), 50, (48, 48))],
)
def test_validation_takes_the_centre(
    tmp_path: Path, photos: Any, size: Any, largest: int, shape: Any
) -> None:
    picture = Image.open(photos.valid_paths[0]).convert("RGB").resize(size)
    picture.save(tmp_path / "valid.png")
    dataset = ValidationPictures([tmp_path / "valid.png"], largest)
    assert len(dataset) == 1
    top, left = (size[1] - shape[0]) // 2, (size[0] - shape[1]) // 2
    wanted = np.asarray(picture)[top : top + shape[0], left : left + shape[1]]
    assert np.array_equal(dataset[0].permute(1, 2, 0).numpy(), wanted)


def test_validation_keeps_only_the_centre_in_memory(photos: Any) -> None:
    """Not a view, which would keep the whole picture alive."""
    picture = ValidationPictures(photos.valid_paths, 160).pictures[0]
    assert picture.base is None
    assert ValidationPictures(photos.valid_paths, 64).pictures[0].nbytes == 64 * 64 * 3


def test_a_picture_too_small_to_validate_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (20, 7)).save(tmp_path / "strip.png")
    with pytest.raises(TrainingError, match=r"strip\.png is 20x7 pixels.*leave it out"):
        ValidationPictures([tmp_path / "strip.png"])
