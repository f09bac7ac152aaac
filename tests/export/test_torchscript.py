"""TorchScript files: they load without cwic, at any size, and give eager's results."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cwic.bundle import Bundle
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.runners import TorchScriptRunner
from cwic_training.model import CodecNetwork

# Reads the graphs and a picture from a folder given, in a process that cannot import cwic.
WITHOUT_CWIC = """
import sys, warnings
for name in ("cwic", "cwic_training", "cwic_export"):
    sys.modules[name] = None
warnings.simplefilter("ignore")
import numpy, torch
encoder, decoder = (torch.jit.load(path) for path in sys.argv[1:3])
image = torch.from_numpy(numpy.load(sys.argv[3]))
codes, importance = encoder(image)
numpy.save(sys.argv[4], decoder(codes, importance // 32).numpy())
"""


@pytest.fixture(scope="module")
def runner(bundle: Bundle) -> TorchScriptRunner:
    files = (bundle.read(f"{role}.torchscript.pt") for role in ("encoder", "decoder"))
    loaded = TorchScriptRunner.from_bytes(*files)
    assert isinstance(loaded, TorchScriptRunner)
    return loaded


@pytest.mark.parametrize("sides", [(8, 8), (16, 64), (96, 128)])
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_eager(
    network: CodecNetwork,
    runner: TorchScriptRunner,
    image: Tensor,
    sides: tuple[int, int],
    batch: int,
) -> None:
    part = image[:batch, : sides[0], : sides[1]].contiguous()
    with torch.no_grad():
        codes, importance = EncoderGraph(network)(part)
        picture = DecoderGraph(network)(codes, importance // 32)
    own_codes, own_importance = runner.encode(part.numpy())
    np.testing.assert_array_equal(own_codes, codes)
    np.testing.assert_array_equal(own_importance, importance)
    np.testing.assert_array_equal(runner.decode(own_codes, own_importance // 32), picture)


def test_loads_and_runs_where_cwic_is_not_installed(
    bundle: Bundle, network: CodecNetwork, image: Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image.numpy())
    graphs = [str(bundle.path / f"{role}.torchscript.pt") for role in ("encoder", "decoder")]
    arrays = [str(tmp_path / name) for name in ("image.npy", "out.npy")]
    command = [sys.executable, "-c", WITHOUT_CWIC, *graphs, *arrays]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, importance = EncoderGraph(network)(image)
    expected = DecoderGraph(network)(codes, importance // 32)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_names_neither_a_device_nor_the_machine(bundle: Bundle, role: str) -> None:
    with zipfile.ZipFile(bundle.path / f"{role}.torchscript.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    code = b"".join(data for name, data in records.items() if name.endswith(".py"))
    assert b"torch.round" in code
    assert b"device" not in code
    assert not any(b"site-packages" in data or b"graphs.py" in data for data in records.values())
    assert not any(name.endswith(".debug_pkl") for name in records)
