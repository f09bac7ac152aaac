"""Validation: does every artefact of a bundle do what the eager graphs do?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cwic.backends import Runner
from cwic.bundle import Bundle
from cwic.codec import Codec
from cwic.errors import CwicError, ExportError, ImageError
from cwic.image import open_rgb
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.identity import model_id
from cwic_export.runners import EagerRunner
from cwic_export.validation.artefacts import artefacts_of, graph_bytes, open_runner
from cwic_export.validation.compare import Picture, View, compare
from cwic_export.validation.matrix import Matrix
from cwic_export.validation.report import Artefact, Bytes, Report
from cwic_training.checkpoint import Checkpoint, load_checkpoint

__all__ = ["REFERENCE", "SCALES", "SMALLEST_SIDE_PX", "validate_bundle"]

SCALES = (0.25, 0.5, 1.0)
"""Rate factors by default: a low, a middle and a high rate."""
SMALLEST_SIDE_PX = 64
"""A smaller picture is mostly border."""
REFERENCE = "eager fp32"
_NODES_PX = 256
_ONNX = ("onnx", "onnx-tensorrt", "triton")


def validate_bundle(
    bundle_path: str | Path,
    reference_checkpoint: str | Path,
    images: Sequence[str | Path],
    scales: Sequence[float] = SCALES,
    crop_px: int | None = None,
) -> Report:
    """Compare every artefact of a bundle that can run here with the eager graphs.

    Args:
        bundle_path: the bundle.
        reference_checkpoint: the checkpoint that it was exported from.
        images: pictures to compare on.
        scales: rate factors, positive.
        crop_px: take the centre of pictures that are larger; None: the whole picture.

    Raises:
        ExportError: no picture, a rate or size out of range, or a bundle of another model.
        BundleError, CheckpointError, ImageError: an input or the bundle's entropy tables
            cannot be read, or a picture is too small. An artefact that fails is no exception
            but a line of the report.
    """
    _check(images, scales, crop_px)
    bundle = Bundle.load(bundle_path)
    checkpoint = load_checkpoint(reference_checkpoint)
    expected = model_id(checkpoint)
    if bundle.model_id != expected:
        raise ExportError(
            f"{bundle.path} is model {bundle.model_id.hex()}, but {reference_checkpoint} is "
            f"model {expected.hex()}; pass the checkpoint that the bundle was exported from"
        )
    pictures = [_open(path, crop_px) for path in images]
    reference = EagerRunner(checkpoint.network())
    codec = Codec(bundle, reference)
    artefacts = artefacts_of(bundle)
    runners = {a.label: runner for a in artefacts if (runner := _runner(bundle, a)) is not None}
    matrix = Matrix({REFERENCE: "fp32"} | {a.label: a.precision for a in artefacts})
    names = tuple(Path(path).name for path in images)
    for name, pixels in zip(names, pictures, strict=True):
        picture = Picture(name, pixels, codec, reference, scales)
        made: dict[str, tuple[Runner, list[View]]] = {REFERENCE: (reference, picture.views)}
        for artefact in artefacts:
            if artefact.runs:
                try:
                    views = compare(picture, runners[artefact.label], artefact)
                except CwicError as exc:
                    artefact.fail(str(exc))
                else:
                    made[artefact.label] = runners[artefact.label], views
        matrix.add(picture, made)
    _locate(codec, checkpoint, artefacts, pictures[0])
    return Report(
        bundle.name, bundle.model_id.hex(), names, tuple(scales), artefacts, matrix.crossings
    )


def _check(images: Sequence[str | Path], scales: Sequence[float], crop_px: int | None) -> None:
    if not images or not scales:
        raise ExportError("nothing to compare on; pass at least one picture and one scale")
    for scale in scales:
        if not 0 < scale <= 100:
            raise ExportError(f"a rate factor of {scale:g} is out of range; use for example 0.5")
    if crop_px is not None and crop_px < SMALLEST_SIDE_PX:
        raise ExportError(
            f"a crop of {crop_px} pixels is too small to compare on; "
            f"use at least {SMALLEST_SIDE_PX}"
        )


def _open(path: str | Path, crop_px: int | None) -> Bytes:
    pixels = open_rgb(path)
    height_px, width_px = pixels.shape[:2]
    if min(height_px, width_px) < SMALLEST_SIDE_PX:
        raise ImageError(
            f"{path} is {width_px}x{height_px} pixels, too small to compare on; "
            f"use pictures of at least {SMALLEST_SIDE_PX} pixels a side"
        )
    if crop_px is None:
        return pixels
    top, left = (max(side - crop_px, 0) // 2 for side in (height_px, width_px))
    return np.ascontiguousarray(pixels[top : top + crop_px, left : left + crop_px])


def _runner(bundle: Bundle, artefact: Artefact) -> Runner | None:
    try:
        return open_runner(bundle, artefact)
    except CwicError as exc:
        artefact.fail(str(exc))
        return None


def _locate(
    codec: Codec, checkpoint: Checkpoint, artefacts: Sequence[Artefact], pixels: Bytes
) -> None:
    """Name the nodes that the errors of ONNX files come from, where there are any to expect."""
    wanted = [
        a
        for a in artefacts
        if a.runs and a.target in _ONNX and (a.precision != "fp32" or a.status == "differs")
    ]
    if not wanted:
        return
    from cwic_export.validation.nodes import departures

    bundle = codec.bundle
    part = pixels[:_NODES_PX, :_NODES_PX]
    image = np.ascontiguousarray(part[: len(part) // 8 * 8, : part.shape[1] // 8 * 8])[None]
    codes, importance = codec.runner.encode(image)
    # All codes are kept, so that every channel counts.
    levels = np.full_like(importance, bundle.levels)
    sent = codec.context.codes.sent(codes[0], levels[0])[None]
    feeds = {"encoder": {"image": image}, "decoder": {"codes": sent, "levels": levels}}
    graphs = _reference_graphs(bundle, checkpoint, artefacts)
    for artefact in wanted:
        try:
            for role, feed in feeds.items():
                data = graph_bytes(bundle, artefact, role)
                artefact.departures += departures(role, graphs[role], data, feed)
        except CwicError as exc:
            artefact.fail(str(exc))


def _reference_graphs(
    bundle: Bundle, checkpoint: Checkpoint, artefacts: Sequence[Artefact]
) -> dict[str, bytes]:
    """The fp32 ONNX files by role: those of the bundle if they passed, else made again."""
    for artefact in artefacts:
        if (artefact.target, artefact.precision, artefact.status) == ("onnx", "fp32", "passed"):
            return {role: graph_bytes(bundle, artefact, role) for role in ("encoder", "decoder")}
    from cwic_export.onnx import to_bytes

    network = checkpoint.network()
    return {
        "encoder": to_bytes(EncoderGraph(network)),
        "decoder": to_bytes(DecoderGraph(network)),
    }
