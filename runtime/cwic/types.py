"""Type names shared by the modules of the runtime."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ImageLike"]

ImageLike: TypeAlias = "Image.Image | NDArray[np.uint8]"
"""What can be encoded: a Pillow image of any mode, or uint8 [H, W, 3] or [H, W]."""
