"""ExportedProgram files: they load without cwic, at any size, and give eager's results."""

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
from cwic.errors import BackendError
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.runners import ExportedProgramRunner
from cwic_training.model import CodecNetwork

# Reads the graphs and a picture from a folder given, in a process that cannot import cwic.
WITHOUT_CWIC = """
import sys, warnings
for name in ("cwic", "cwic_training", "cwic_export"):
    sys.modules[name] = None
warnings.simplefilter("ignore")
import numpy, torch
encoder, decoder = (torch.export.load(path).module() for path in sys.argv[1:3])
image = torch.from_numpy(numpy.load(sys.argv[3]))
codes, importance = encoder(image)
numpy.save(sys.argv[4], decoder(codes, importance // 32).numpy())
"""


@pytest.fixture(scope="module")
def runner(bundle: Bundle) -> ExportedProgramRunner:
    files = (bundle.read(f"{role}.pt2") for role in ("encoder", "decoder"))
    loaded = ExportedProgramRunner.from_bytes(*files)
    assert isinstance(loaded, ExportedProgramRunner)
    return loaded


@pytest.mark.parametrize("sides", [(16, 16), (16, 64), (96, 128)])
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_eager(
    network: CodecNetwork,
    runner: ExportedProgramRunner,
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
    graphs = [str(bundle.path / f"{role}.pt2") for role in ("encoder", "decoder")]
    arrays = [str(tmp_path / name) for name in ("image.npy", "out.npy")]
    command = [sys.executable, "-c", WITHOUT_CWIC, *graphs, *arrays]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, importance = EncoderGraph(network)(image)
    expected = DecoderGraph(network)(codes, importance // 32)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_the_smallest_picture_is_16_by_16(runner: ExportedProgramRunner, image: Tensor) -> None:
    runner.encode(image[:, :16, :16].numpy())
    with pytest.raises(BackendError, match="exported-program encoder does not run"):
        runner.encode(image[:, :8, :8].numpy())


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_no_trace_of_the_machine(bundle: Bundle, role: str) -> None:
    with zipfile.ZipFile(bundle.path / f"{role}.pt2") as archive:
        records = [archive.read(name) for name in archive.namelist()]
    assert not any(b"site-packages" in data or b"graphs.py" in data for data in records)
