"""The codec: pictures to ``.cwic`` bytes and back.

::

    encode: picture ─ tiled, runner ─▶ codes, importance ─ rate, targets ─▶ levels
            levels, codes ─ coding: per tile context, rANS ─▶ sections ─ container ─▶ bytes
    decode: bytes ─ container ─▶ sections ─ coding ─▶ levels, codes
            ─ tiled, runner ─▶ picture
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic import packaged, tiled
from cwic.backends import Runner, open_runner
from cwic.bundle import CONTEXT_FILE, Bundle
from cwic.coding import Available, MapCoder
from cwic.container import DEFAULT_MAX_PIXELS, STRIDE, Header, Stream
from cwic.encoding import Encoded, Encoding, Target
from cwic.entropy_model import ContextModel
from cwic.errors import BundleError, ImageError, ModelMismatchError
from cwic.extras import Extras
from cwic.image import Canvas, as_picture
from cwic.rate import QualityScale
from cwic.roi import BACKGROUND, position_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cwic.types import EncodeOptions, ImageLike, RegionLike

__all__ = ["Codec", "Encoded", "Salvaged", "load"]


@dataclass(frozen=True)
class Salvaged:
    """What a cut or damaged stream still gives.

    Attributes:
        image: the picture, of the size and mode that the header says.
        codes_kept: share of the stream's codes that were read, 0..1 of those whose number is
            known (a tile without its levels counts as none).
        tiles: number of tiles.
        lost: tiles of which nothing could be read, by number; grey in the picture.
        coarse: tiles that lack codes and are coarser than they were encoded.
        missing: alpha and metadata that could not be read; the picture is then opaque.
    """

    image: Image.Image
    codes_kept: float
    tiles: int
    lost: tuple[int, ...]
    coarse: tuple[int, ...]
    missing: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """What is missing, in words; empty for a whole stream."""
        words = []
        if self.lost or self.coarse:
            words.append(f"{100 * self.codes_kept:.0f} % of the known codes")
        for name, numbers in (("coarse", self.coarse), ("lost", self.lost)):
            if numbers:
                few = ", ".join(str(number + 1) for number in numbers[:8])
                more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
                words.append(f"{name} tiles: {few}{more} of {self.tiles}")
        if self.missing:
            words.append(f"without {', '.join(self.missing)}")
        return "; ".join(words)

    @classmethod
    def of(cls, image: Image.Image, found: Available, missing: tuple[str, ...]) -> Salvaged:
        """Of what was read, by tiles."""
        pairs = list(enumerate(zip(found.wanted, found.reached, strict=True)))
        lost = tuple(i for i, (wanted, _) in pairs if wanted is None)
        coarse = tuple(i for i, (wanted, got) in pairs if wanted is not None and got < wanted)
        share = sum(found.reached) / max(1, sum(wanted or 0 for wanted in found.wanted))
        return cls(image, share, len(pairs), lost, coarse, missing)


class Codec:
    """Encoder and decoder of one model. Methods may be called from several threads.

    Args:
        bundle: the model.
        runner: the backend that runs its graphs.
        threads: see :class:`cwic.coding.MapCoder`.
    """

    def __init__(self, bundle: Bundle, runner: Runner, threads: int = 0) -> None:
        if bundle.stride != STRIDE:
            raise BundleError(
                f"the model has a stride of {bundle.stride} and the stream {STRIDE}; "
                "export the model again with this release"
            )
        self.bundle, self.runner = bundle, runner
        self.qualities = QualityScale(bundle.quality_scales)
        data = bundle.read(CONTEXT_FILE)
        self.coder = MapCoder(ContextModel.from_bytes(data, bundle.n, bundle.levels), threads)
        if self.context.codes.channels != bundle.decoder_channels:
            raise BundleError(
                f"the entropy model is not one of {bundle.codes}; export the model again"
            )

    @property
    def context(self) -> ContextModel:
        """The entropy model."""
        return self.coder.context

    def encode(self, image: ImageLike, **options: Unpack[EncodeOptions]) -> bytes:
        """Compress a picture; :meth:`encode_detailed` without the details."""
        return self.encode_detailed(image, **options).data

    def encode_detailed(
        self,
        image: ImageLike,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        psnr_db: float | None = None,
        roi: RegionLike | None = None,
        roi_background: float = BACKGROUND,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        metadata: bool | Collection[str] = True,
        progressive: bool = False,
        effort: int = 0,
    ) -> Encoded:
        """Compress a picture at a quality, bit rate, byte budget or PSNR (at most one of them).

        The encoder network runs once; what remains is a choice of levels, see
        :mod:`cwic.targets`. A PSNR takes about six runs of the decoder network besides, and
        each round of effort about three.

        Args:
            image: Pillow image, uint8 [H, W, 3], or what else :mod:`cwic.image` takes.
            quality: 1..100; 50 if nothing is given.
            bpp: the file takes at most this many bits per pixel.
            max_bytes: the file takes at most this many bytes, and at least 99 % of them where
                more codes improve the picture.
            psnr_db: the picture has at least this PSNR (RGB), and at most 0.05 dB more.
            roi: region of interest: a grey mask, or boxes; see
                :func:`cwic.roi.position_weights`.
            roi_background: weight 0..1 of what lies outside boxes.
            max_pixels: refuse larger pictures, as a decoder does by default: memory
                grows with them, by about ten bytes a pixel, five where codes are signs.
            metadata: whether to carry ICC profile, EXIF and XMP, or which: some of the names
                icc, exif, xmp.
            progressive: put the codes in layers, so that a file that is cut anywhere gives the
                whole picture at a lower quality (:meth:`salvage`).
            effort: rounds of a search for codes that decode to a better picture, 0 to
                :data:`~cwic.encoding.MOST_EFFORT` (:mod:`cwic.search`). Any decoder reads them.

        Raises:
            BackendError: an effort, and the backend cannot search.
            ImageError: the picture cannot be coded, or is larger than ``max_pixels``.
            RateError: the rate cannot be met; the message names the smallest file or best PSNR.
            UsageError: an option out of range, or more than one.
        """
        target = Target(quality, bpp, max_bytes, psnr_db, effort)
        picture = as_picture(image)
        size = picture.height_px, picture.width_px
        if size[0] * size[1] > max_pixels:
            raise ImageError(
                f"the picture is {size[1]}x{size[0]} pixels, more than the limit of "
                f"{max_pixels}; shrink it, or raise max_pixels (--max-pixels) here and in decode"
            )
        extras = picture.extras.sections(metadata)
        weights = (
            None
            if roi is None
            else position_weights(roi, *size, self.bundle.stride, roi_background)
        )
        encoding = Encoding(
            self.bundle,
            self.runner,
            self.coder,
            self.qualities,
            picture,
            extras,
            weights,
            progressive,
        )
        return encoding.reach(target)

    def write_stream(
        self,
        codes: NDArray[np.uint8],
        levels: NDArray[np.uint8],
        width_px: int,
        height_px: int,
        scale: float,
    ) -> bytes:
        """Entropy-code codes uint8 [channels, h, w] and levels uint8 [h, w] into a stream."""
        written = self.coder.write(codes, levels)
        quality = self.qualities.quality(scale)
        lanes, tile = written.lanes, self.coder.tile
        header = Header(width_px, height_px, self.bundle.model_id, quality, lanes, tile)
        return Stream(header, written.tiles).to_bytes()

    def decode(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """Restore a picture, mode L, LA, RGB or RGBA.

        Its ``info`` has what is carried of ``icc_profile``, ``exif`` and ``xmp``, by Pillow's
        names; :func:`cwic.metadata.save_options` keeps them in a file.

        Args:
            data: a whole ``.cwic`` stream.
            max_pixels: refuse larger pictures before anything is allocated for them.

        Raises:
            StreamError: of the kind that says what is wrong with the stream.
            BackendError: the decoder graph fails.
        """
        stream = Stream.from_bytes(bytes(data), max_pixels)
        return self._picture(stream.header, *self.read_codes(stream), Extras.read(stream))

    def read_codes(self, stream: Stream) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes uint8 [channels, h, w] and levels uint8 [h, w] of a parsed stream."""
        self._check_model(stream.header)
        return self.coder.read(stream)

    def salvage(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Salvaged:
        """Restore what is intact of a stream that was cut or damaged behind its header.

        Every section and chunk that is used has passed its checksum, but for the last bytes of a
        cut stream, which have lost theirs; where they say more than a writer could have, they
        count as lost. A tile whose codes end early keeps its whole passes: it is coarser. A tile
        without levels is lost.

        Args, errors: as :meth:`decode`; a damaged header cannot be salvaged.
        """
        stream = Stream.salvage(bytes(data), max_pixels)
        self._check_model(stream.header)
        found = self.coder.read_available(stream)
        extras = Extras.read(stream, salvage=True)
        image = self._picture(stream.header, found.codes, found.levels, extras)
        return Salvaged.of(image, found, extras.missing)

    def _picture(
        self, header: Header, codes: NDArray[np.uint8], levels: NDArray[np.uint8], extras: Extras
    ) -> Image.Image:
        size = header.height_px, header.width_px
        canvas = Canvas(*size, header.grey)
        tiled.decode(self.runner, codes, levels, canvas.write, *size, self.bundle.stride)
        return canvas.finished(extras)

    def _check_model(self, header: Header) -> None:
        if header.model_id != self.bundle.model_id:
            known = packaged.name_of(header.model_id)
            remedy = f"open {known!r}" if known else "pass the bundle that made it"
            raise ModelMismatchError(
                f"the stream was made by model {header.model_id.hex()} and "
                f"{self.bundle.name!r} is {self.bundle.model_id.hex()}; {remedy} (--model)"
            )


def load(
    bundle: str | Path | None = None,
    backend: str = "auto",
    *,
    precision: str | None = None,
    rebuild: bool = False,
    threads: int = 0,
) -> Codec:
    """Open a model for encoding and decoding.

    Args:
        bundle: folder written by ``cwic export``, or the name of a model in the package,
            :func:`cwic.packaged.names`; None takes `nano`.
        backend: one of :data:`cwic.backends.BACKENDS`.
        precision, rebuild: see :func:`cwic.backends.open_runner`.
        threads: see :class:`Codec`.

    Raises:
        BundleError: the folder is not a usable bundle.
        BackendError: the backend's library is missing.
    """
    opened = Bundle.load(bundle)
    runner = open_runner(opened, backend, precision=precision, rebuild=rebuild)
    return Codec(opened, runner, threads)
