"""Register the plugin with TensorRT's Python code, print what it computes (test_plugin.py)."""

import tensorrt as trt
from tensorrt.plugin._lib import QDP_REGISTRY
from tensorrt.plugin._tensor import ShapeExpr, ShapeExprs, SymIntExpr, TensorDesc

from cwic.engines import plugin
from cwic.engines.library import Library


class Expressions:
    def constant(self, value):
        return trt.IDimensionExpr(value)

    def operation(self, operation, a, b):
        results = {
            "PROD": a.value * b.value,
            "FLOOR_DIV": a.value // b.value,
            "CEIL_DIV": -(-a.value // b.value),
        }
        return trt.IDimensionExpr(results[str(operation).rpartition(".")[2]])


plugin._register(Library("tensorrt", "11.0.0", trt), "ptx")
definition = QDP_REGISTRY[plugin.PLUGIN]

# First TensorRT asks for types alone, with shapes that hold nothing.
e = TensorDesc()
e.dtype, e.shape_expr = trt.float32, ShapeExprs(4, _is_dummy=True)
assert definition.register_func(e).dtype == trt.float32

SymIntExpr._exprBuilder = Expressions()
e = TensorDesc()
e.dtype, e.shape_expr = trt.float32, ShapeExprs(4)
for axis, size in enumerate((2, 128, 135, 240)):
    e.shape_expr[axis] = ShapeExpr(trt.IDimensionExpr(size))
packed = definition.register_func(e)
assert packed.dtype == trt.float32
print("(" + ",".join(str(size._expr.value) for size in packed.shape_expr) + ")")
name, ptx, launch, scalars = definition.aot_impl_func(e, [packed], 0)
assert ptx == "ptx"
print(name, launch.grid_x._expr.value, launch.block_x._expr.value)
print(*(scalar._expr.value for scalar in scalars))
