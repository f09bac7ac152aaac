"""TorchScript and ExportedProgram: they load without cwic and give eager's results."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cwic.bundle import Bundle
from cwic.errors import BackendError
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.runners import ArtefactRunner, ExportedProgramRunner, TorchScriptRunner
from cwic_training.model import CodecNetwork

# Reads the graphs and a picture from a folder given, in a process that cannot import cwic.
WITHOUT_CWIC = """
import sys, warnings
for name in ("cwic", "cwic_training", "cwic_export"):
    sys.modules[name] = None
warnings.simplefilter("ignore")
import numpy, torch
encoder, decoder = ({load} for path in sys.argv[1:3])
image = torch.from_numpy(numpy.load(sys.argv[3]))
codes, importance = encoder(image)
numpy.save(sys.argv[4], decoder(codes, importance // 32).numpy())
"""


@dataclass(frozen=True)
class Form:
    """One of the two: its files, its runner, the code that loads it, the smallest side."""

    suffix: str
    kind: type[ArtefactRunner]
    load: str
    smallest_px: int

    def names(self) -> list[str]:
        return [f"{role}.{self.suffix}" for role in ("encoder", "decoder")]


FORMS = (
    Form("torchscript.pt", TorchScriptRunner, "torch.jit.load(path)", 8),
    Form("pt2", ExportedProgramRunner, "torch.export.load(path).module()", 16),
)


@pytest.fixture(scope="module", params=FORMS, ids=lambda f: f.suffix)
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


@pytest.fixture(scope="module")
def runner(bundle: Bundle, form: Form) -> ArtefactRunner:
    return form.kind.from_bytes(*(bundle.read(name) for name in form.names()))


@pytest.mark.parametrize("sides", [(0, 0), (16, 64), (96, 128)], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_eager(
    network: CodecNetwork,
    runner: ArtefactRunner,
    form: Form,
    image: Tensor,
    sides: tuple[int, int],
    batch: int,
) -> None:
    height_px, width_px = (max(side, form.smallest_px) for side in sides)
    part = image[:batch, :height_px, :width_px].contiguous()
    with torch.no_grad():
        codes, importance = EncoderGraph(network)(part)
        picture = DecoderGraph(network)(codes, importance // 32)
    own_codes, own_importance = runner.encode(part.numpy())
    np.testing.assert_array_equal(own_codes, codes)
    np.testing.assert_array_equal(own_importance, importance)
    np.testing.assert_array_equal(runner.decode(own_codes, own_importance // 32), picture)


def test_loads_and_runs_where_cwic_is_not_installed(
    bundle: Bundle, network: CodecNetwork, form: Form, image: Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image.numpy())
    graphs = [str(bundle.path / name) for name in form.names()]
    arrays = [str(tmp_path / name) for name in ("image.npy", "out.npy")]
    command = [sys.executable, "-c", WITHOUT_CWIC.format(load=form.load), *graphs, *arrays]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes, importance = EncoderGraph(network)(image)
    expected = DecoderGraph(network)(codes, importance // 32)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_an_exported_program_needs_16_by_16(bundle: Bundle, image: Tensor) -> None:
    files = (bundle.read(name) for name in FORMS[1].names())
    runner = ExportedProgramRunner.from_bytes(*files)
    with pytest.raises(BackendError, match="exported-program encoder does not run"):
        runner.encode(image[:, :8, :8].numpy())


def test_no_trace_of_the_machine(bundle: Bundle, form: Form) -> None:
    for name in form.names():
        with zipfile.ZipFile(bundle.path / name) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        for data in records.values():
            assert b"site-packages" not in data
            assert b"graphs.py" not in data
        assert not any(name.endswith(".debug_pkl") for name in records)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_torchscript_names_no_device(bundle: Bundle, role: str) -> None:
    with zipfile.ZipFile(bundle.path / f"{role}.torchscript.pt") as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    code = b"".join(sources)
    assert b"torch.round" in code
    assert b"device" not in code
