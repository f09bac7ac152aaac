"""The script for machines with a GPU, as far as it can be run without one.

What is left on the CPU is the same code with ``--device cpu``, engines over the stand-in for CUDA
and TensorRT, and the reasons for what is skipped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scripts.accelerator import targets as targets_module
from scripts.accelerator import torch_graphs
from scripts.accelerator.__main__ import main
from scripts.accelerator.bundles import Bundles
from scripts.accelerator.measure import parse_sizes, picture_of
from scripts.accelerator.onnx_graphs import CUDA, OnnxRunner, TensorrtProviderRunner
from scripts.accelerator.targets import Site, Target, targets
from tests.export.conftest import SMALL, VALUES, make_checkpoint
from tests.runtime.backends.fake_gpu import ORIN, VERSION, FakeCuda, FakeTensorRT

from cwic import doctor
from cwic.backends import onnxrt, tensorrt
from cwic.backends.device import Device
from cwic.bundle import Bundle, FileEntry
from cwic.engines import library
from cwic.engines import target as engine_target
from cwic.engines.library import Library
from cwic.engines.record import FACTS, EngineRecord, file_name
from cwic.errors import BackendError, UsageError
from cwic_export import exported_program, torch_tensorrt
from cwic_export.graphs import DecoderGraph, EncoderGraph, Graph
from cwic_training.checkpoint import save_checkpoint
from cwic_training.model import CodecNetwork

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models" / "nano.safetensors"
QUICK = ("--sizes", "72x64", "--repeats", "2", "--crop", "64")
Json = dict[str, Any]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small model, with entropy tables."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_checkpoint(path, make_checkpoint(SMALL))
    return path


def run(folder: Path, *arguments: str | Path) -> tuple[int, Json]:
    """Exit status and JSON, by target and precision under ``targets``."""
    output = folder / "out.json"
    status = main(["-o", str(output), *QUICK, *map(str, arguments)])
    result: Json = json.loads(output.read_text())
    result["targets"] = {(e["target"], e["precision"]): e for e in result["targets"]}
    return status, result


def test_without_a_gpu_everything_is_skipped_with_its_reason(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    paths = os.pathsep.join(str(ROOT / name) for name in ("runtime", "training", "export"))
    done = subprocess.run(
        [sys.executable, "-m", "scripts.accelerator", "-o", output],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert result["complete"]
    assert result["passed"]
    assert {"commit", "command", "machine", "gpu", "versions", "tolerances"} <= result.keys()
    expected = [(target.name, target.precision) for target in targets("cuda")]
    assert [(e["target"], e["precision"]) for e in result["targets"]] == expected
    for entry in result["targets"]:
        assert entry["status"] == "skipped"
        reason, _, remedy = entry["skipped"].rpartition(";")
        assert reason
        assert remedy
        assert "\n" not in entry["skipped"]
        assert entry["skipped"] in done.stdout


def test_the_graphs_of_pytorch_pass_on_the_cpu(
    tmp_path: Path, details: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "eager,torchscript,exported-program"
    status, result = run(
        tmp_path,
        *("--device", "cpu", "--images", details),
        *("--targets", names, "--checkpoint", small),
    )
    assert status == 0, capsys.readouterr()
    found = {key: entry["status"] for key, entry in result["targets"].items()}
    assert found == {
        ("eager", "fp32"): "passed",
        ("eager", "bf16"): "no verdict",
        ("torchscript", "fp32"): "passed",
        ("exported-program", "fp32"): "passed",
    }
    assert result["pictures"] == ["kodim03.png", "kodim23.png"]
    for entry in result["targets"].values():
        assert entry["codes"] == 2 * SMALL.n * 8 * 8
        assert len(entry["by_scale"]) == len(result["scales"])
        assert entry["end_to_end"] is None
        times = entry["times"]["72x64"]
        for role in ("encoder", "decoder"):
            for way in ("host", "device"):
                spread = times[role][way]
                assert 0 < spread["quartile_1_ms"] <= spread["median_ms"] <= spread["quartile_3_ms"]
    exact, rounded = (result["targets"]["eager", p] for p in ("fp32", "bf16"))
    assert exact["flips"] == 0
    assert rounded["flips"] > 0
    assert rounded["largest_flip_margin"] > 0
    sides = {"eager fp32", "eager fp32 on cpu"}
    assert {(c["encoder"], c["decoder"]) for c in exact["crossings"]} == {
        (a, b) for a in sides for b in sides
    }
    assert all(c["streams"] == 2 * 3 and c["wrong"] == 0 for c in exact["crossings"])
    assert "torchscript fp32" in capsys.readouterr().out


def test_a_backend_of_the_runtime_is_timed_end_to_end(tmp_path: Path, details: str) -> None:
    status, result = run(
        tmp_path,
        *("--device", "cpu", "--images", details),
        *("--targets", "onnxruntime-cpu", "--bundle", Bundle.load().path),
    )
    assert status == 0
    passed, skipped = (result["targets"]["onnxruntime-cpu", p] for p in ("fp32", "fp16"))
    assert passed["status"] == "passed"
    assert {"host", "device"} <= passed["times"]["72x64"]["decoder"].keys()
    assert passed["end_to_end"]["backend"] == "cpu"
    (picture,) = passed["end_to_end"]["pictures"]
    assert (picture["name"], picture["width_px"], picture["height_px"]) == ("72x64", 72, 64)
    assert picture["encode"]["total"]["median_ms"] > picture["encode"]["network"]["median_ms"]
    assert skipped["status"] == "skipped"
    assert "--formats onnx-fp16" in skipped["skipped"]


@pytest.mark.parametrize("failure", ["differs", "error"])
def test_what_is_wrong_fails_and_leaves_the_others(
    failure: str,
    tmp_path: Path,
    details: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inner = OnnxRunner.decode

    def decode(runner: OnnxRunner, codes: Any, levels: Any) -> Any:
        if failure == "error":
            raise RuntimeError("out of memory\nmore of it")
        return 255 - inner(runner, codes, levels)

    monkeypatch.setattr(OnnxRunner, "decode", decode)
    status, result = run(
        tmp_path,
        *("--device", "cpu", "--images", details),
        *("--targets", "onnxruntime-cpu,eager", "--bundle", Bundle.load().path),
    )
    assert status == 1
    assert result["complete"]
    assert not result["passed"]
    assert result["targets"]["eager", "fp32"]["status"] == "passed"
    entry = result["targets"]["onnxruntime-cpu", "fp32"]
    assert entry["status"] == failure
    if failure == "error":
        assert entry["problems"] == ["RuntimeError: out of memory"]
    else:
        assert any("a pixel differs" in problem for problem in entry["problems"])
    assert entry["problems"][0] in capsys.readouterr().out


def see_gpu(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    for module in (tensorrt, targets_module, engine_target):
        monkeypatch.setattr(module, "find_device", lambda: device)


def with_engines(path: Path) -> Bundle:
    """The shipped bundle in ``path`` with stand-ins for engines: the bytes of its ONNX files."""
    shipped = Bundle.load()
    path.mkdir()
    for name in shipped.files:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes((shipped.path / name).read_bytes())
    files, records = dict(shipped.files), {}
    for role in ("encoder", "decoder"):
        source = f"{role}.onnx"
        name = file_name(role, Library("tensorrt", VERSION, None), ORIN.sm, "fp32")
        (path / name).write_bytes(shipped.read(source))
        files[name] = FileEntry.of(path / name, role=role, target="tensorrt", precision="fp32")
        records[name] = EngineRecord(
            kind="tensorrt",
            library_version=VERSION,
            sm=ORIN.sm,
            gpu=ORIN.name,
            precision="fp32",
            profile={},
            onnx=source,
            onnx_sha256=shipped.files[source].sha256,
            builder={},
            audit={},
        ).to_json()
    facts = {**shipped.facts, FACTS: records}
    bundle = dataclasses.replace(shipped, path=path, files=files, facts=facts)
    bundle.save()
    return bundle


def test_engines_run_over_the_stand_in(
    tmp_path: Path, details: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(cuda))
    monkeypatch.setattr(library, "_loggers", {})
    see_gpu(monkeypatch, ORIN)
    given = with_engines(tmp_path / "bundle")
    status, result = run(
        tmp_path, "--images", details, "--targets", "tensorrt", "--bundle", given.path
    )
    assert status == 0
    found = {key[1]: entry for key, entry in result["targets"].items()}
    assert {p: e["status"] for p, e in found.items()} == {
        "fp32": "passed",
        "fp16": "skipped",
        "int8": "skipped",
    }
    assert found["fp32"]["end_to_end"]["backend"] == "tensorrt"
    assert found["fp32"]["engines"].keys() == given.facts[FACTS].keys()
    assert found["fp32"]["times"]["72x64"]["encoder"].keys() == {"host"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A machine whose onnxruntime lists CUDA and cannot load it."""
    state = doctor.ProviderState(CUDA, False, "libcudnn.so.9 is missing")
    report = dataclasses.replace(doctor.examine(), providers=(state,))
    return Site("cuda", Bundles(NANO, tmp_path), report, tmp_path)


def named(name: str) -> Target:
    return next(target for target in targets("cuda") if target.name == name)


def test_tensorrt_for_rtx_refuses_a_gpu_in_its_own_words(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    see_gpu(monkeypatch, Device("H100", "90", 81_559, False, "13.0"))
    with pytest.raises(UsageError, match=r"does not build for SM 90; use one of --sm 75"):
        named("tensorrt-rtx").check(site)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("onnxruntime-cuda", r"cannot load its CUDA.*\(libcudnn.so.9 is missing\); install"),
        ("onnxruntime-tensorrt", r"has no TensorrtExecutionProvider; install"),
    ],
)
def test_a_provider_that_does_not_load_is_a_reason(
    name: str, reason: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets_module, "OnnxRuntimeRunner", lambda *_: None)
    if name.endswith("tensorrt"):
        state = doctor.ProviderState(CUDA, True, None)
        site = dataclasses.replace(
            site, doctor=dataclasses.replace(site.doctor, providers=(state,))
        )
    with pytest.raises(BackendError, match=reason):
        named(name).check(site)


@dataclasses.dataclass(frozen=True)
class Programs:
    """Each graph of a small random model, and the same as an ExportedProgram.

    Attributes:
        channels: what the encoder gives, and what the decoder takes.
        graphs, data: by role.
    """

    channels: tuple[int, int]
    graphs: dict[str, Graph]
    data: dict[str, bytes]


@pytest.fixture(scope="module", params=["signs", "values"])
def programs(request: pytest.FixtureRequest) -> Programs:
    signs = request.param == "signs"
    torch.manual_seed(0)
    network = CodecNetwork(SMALL if signs else VALUES).eval()
    graphs: dict[str, Graph] = {
        "encoder": EncoderGraph(network, decomposed=True),
        "decoder": DecoderGraph(network, decomposed=True),
    }
    channels = (SMALL.n // 8, SMALL.n // 8) if signs else (2 * VALUES.n, VALUES.n)
    return Programs(channels, graphs, {k: exported_program.to_bytes(v) for k, v in graphs.items()})


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_an_exported_program_moves_with_all_its_constants(role: str, programs: Programs) -> None:
    """No GPU is needed to see that nothing stays on the CPU: `meta` is a device as well."""
    shapes = [(2, programs.channels[1], 8, 6), (2, 8, 6)]
    if role == "encoder":
        shapes = [(2, 64, 48, 3)]
    loaded = torch_graphs.load_exported_program(programs.data[role], "meta")
    outputs = loaded(*(torch.zeros(s, dtype=torch.uint8, device="meta") for s in shapes))
    expected = programs.graphs[role](*(torch.zeros(s, dtype=torch.uint8) for s in shapes))
    for ours, theirs in zip(*map(as_tuple, (outputs, expected)), strict=True):
        assert ours.device.type == "meta"
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


def test_files_of_torch_tensorrt_are_run(
    site: Site, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain ExportedPrograms under their names: Torch-TensorRT cannot be imported without a GPU."""
    for role, data in programs.data.items():
        (tmp_path / f"{role}.torch-tensorrt.pt2").write_bytes(data)
    monkeypatch.setattr(torch_tensorrt, "load", lambda: None)
    bundles: Any = SimpleNamespace(get=lambda form: SimpleNamespace(path=tmp_path))
    target = named("torch-tensorrt")
    opened = target.open(dataclasses.replace(site, device="cpu", bundles=bundles), target)
    given, taken = programs.channels
    codes, importance = opened.runner.encode(np.zeros((1, 64, 48, 3), np.uint8))
    assert codes.shape == (1, given, 8, 6)
    image = opened.runner.decode(codes[:, :taken], importance // 32)
    assert image.shape == (1, 64, 48, 3)


def test_onnxruntime_without_its_tensorrt_provider_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It warns and takes another provider, whose figures would go by the wrong name."""
    monkeypatch.setattr(onnxrt, "find_device", lambda: ORIN)
    monkeypatch.setattr(onnxrt.OnnxRuntimeRunner, "_prepare_cuda", lambda self: None)
    runner = TensorrtProviderRunner(Bundle.load(), "fp32")
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(BackendError, match=r"does not run encoder.onnx in its TensorRT provider; "),
    ):
        runner.encode(np.zeros((1, 64, 64, 3), np.uint8))


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_tf32_is_off_while_it_is_measured() -> None:
    before = torch.backends.cudnn.allow_tf32
    with torch_graphs.exact_fp32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_photograph_is_mirrored_on_to_a_size() -> None:
    picture = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    made = picture_of(picture, 11, 5)
    assert made.shape == (5, 11, 3)
    assert np.array_equal(made[:, :4], picture[:5])
    assert np.array_equal(made[:, 4:8], picture[:5, ::-1])


@pytest.mark.parametrize("text", ["", "768", "768x", "axb", "768x512x3", "0x512", "-8x8"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="use for example 768x512"):
        parse_sizes(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--targets", "tensorrt-rxt"),
        ("--images", "nowhere/*.png"),
        ("--repeats", "0"),
        ("--checkpoint", "missing.safetensors"),
    ],
)
def test_a_bad_input_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-o", str(tmp_path / "out.json"), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("accelerator: ")
    assert said.count("\n") == 1
