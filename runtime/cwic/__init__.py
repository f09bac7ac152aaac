"""cwic: content-weighted image compression.

>>> import cwic
>>> codec = cwic.load()
>>> data = codec.encode(image, bpp=0.4)    # a PIL image or uint8 [H, W, 3]
>>> codec.decode(data).save("restored.png")
"""

from cwic.codec import Codec, Encoded, load
from cwic.errors import (
    BackendError,
    BundleError,
    CorruptError,
    CwicError,
    ImageError,
    LimitError,
    ModelMismatchError,
    NotCwicError,
    RateError,
    StreamError,
    TruncatedError,
    UsageError,
    VersionError,
)

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BundleError",
    "Codec",
    "CorruptError",
    "CwicError",
    "Encoded",
    "ImageError",
    "LimitError",
    "ModelMismatchError",
    "NotCwicError",
    "RateError",
    "StreamError",
    "TruncatedError",
    "UsageError",
    "VersionError",
    "__version__",
    "load",
]
