"""``tensorrt`` with RTX's classes, and stand-ins for what RTX lacks; see test_plugin.py."""

import enum

import tensorrt_rtx as _rtx
from tensorrt_rtx import *  # noqa: F403

for _name in dir(_rtx):
    if not _name.startswith("__"):
        globals().setdefault(_name, getattr(_rtx, _name))

__version__ = "11.0.0"


class ISymExpr:
    pass


class ISymExprs:
    pass


class IPluginV3QuickAOTBuild:
    pass


class QuickPluginCreationRequest(enum.Enum):
    UNKNOWN = 0
    PREFER_JIT = 1
    PREFER_AOT = 2
    STRICT_JIT = 3
    STRICT_AOT = 4


class IDimensionExpr:
    """A size as TensorRT computes with it; here a plain number."""

    def __init__(self, value):
        self.value = value

    def is_constant(self):
        return True

    def get_constant_value(self):
        return self.value
