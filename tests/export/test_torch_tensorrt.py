"""The calls to Torch-TensorRT, over a stand-in: the package needs a GPU's driver to load."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cwic.engines.profile import Profile
from cwic.errors import ExportError
from cwic_export import torch_tensorrt
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_training.model import CodecNetwork

Shapes = dict[str, Any]


class StandIn(SimpleNamespace):
    """Compiles to the exported graph itself and notes what it was asked for."""

    def __init__(self, torchscript: bool = True) -> None:
        super().__init__(__version__="0", Input=dict, dynamo=SimpleNamespace(compile=self.compile))
        self.torchscript = torchscript
        self.inputs: list[dict[str, Any]] = []

    def compile(self, program: Any, arg_inputs: list[dict[str, Any]]) -> Any:
        self.inputs = arg_inputs
        return program.module()

    def save(
        self, module: Any, path: str, *, output_format: str, arg_inputs: Any, dynamic_shapes: Any
    ) -> None:
        args = tuple(arg_inputs)
        if output_format == "torchscript":
            if not self.torchscript:
                raise ValueError("no TorchScript any more")
            torch.jit.save(torch.jit.trace(module, args, check_trace=False), path)
        else:
            program = torch.export.export(module, args, dynamic_shapes=dynamic_shapes)
            torch.export.save(program, path)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[StandIn], StandIn]:
    def put(module: StandIn) -> StandIn:
        monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        return module

    return put


def test_both_files_do_what_the_graph_does(
    stand_in: Callable[[StandIn], StandIn], network: CodecNetwork, codes_and_levels: Any
) -> None:
    module = stand_in(StandIn())
    graph = DecoderGraph(network, decomposed=True)
    shapes = Profile.parse(batch=8).shapes("decoder", graph.packing.decoder_channels, 8)
    files = torch_tensorrt.compile_graph(graph, shapes, device="cpu")
    assert [entry["name"] for entry in module.inputs] == ["codes", "levels"]
    assert module.inputs[0]["min_shape"] == (1, 2, 8, 8)
    assert module.inputs[1]["max_shape"] == (8, 270, 480)
    assert {entry["dtype"] for entry in module.inputs} == {torch.uint8}
    expected = graph(*codes_and_levels)
    loaded: dict[str, Callable[..., Tensor]] = {
        "pt2": torch.export.load(io.BytesIO(files["pt2"])).module(),
        "ts": torch.jit.load(io.BytesIO(files["ts"])),
    }
    for run in loaded.values():
        torch.testing.assert_close(run(*codes_and_levels), expected, rtol=0, atol=0)


def test_releases_without_torchscript(
    stand_in: Callable[[StandIn], StandIn], network: CodecNetwork
) -> None:
    stand_in(StandIn(torchscript=False))
    graph = EncoderGraph(network, decomposed=True)
    shapes = Profile.parse(batch=8).shapes("encoder", graph.packing.decoder_channels, 8)
    assert set(torch_tensorrt.compile_graph(graph, shapes, device="cpu")) == {"pt2"}


def test_a_failing_compiler_is_one_line(
    stand_in: Callable[[StandIn], StandIn],
    network: CodecNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = stand_in(StandIn())

    def failing(program: Any, arg_inputs: Any) -> Any:
        raise RuntimeError("no kernel\nand a page of text")

    module.dynamo.compile = failing
    graph = EncoderGraph(network, decomposed=True)
    shapes = Profile.parse(batch=8).shapes("encoder", graph.packing.decoder_channels, 8)
    with pytest.raises(ExportError, match=r"\(no kernel\); install the release that belongs"):
        torch_tensorrt.compile_graph(graph, shapes, device="cpu")


def test_without_a_gpu(
    stand_in: Callable[[StandIn], StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(StandIn())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ExportError, match="PyTorch finds none; .* out of --formats"):
        torch_tensorrt.load()
