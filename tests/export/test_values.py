"""Models whose codes are values: bytes, graphs, every form that they are exported in."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.numpy import load
from torch import Tensor

import cwic
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle, FileEntry
from cwic.container import Stream
from cwic.image import open_rgb
from cwic.quantiser import Quantiser
from cwic.rate import QualityScale
from cwic_export import macs
from cwic_export.cli import export
from cwic_export.graphs import DecoderGraph, EncoderGraph, GradientGraph
from cwic_export.identity import model_id
from cwic_export.packing import packing_of
from cwic_export.quantize.scoring import Scorer, open_pictures
from cwic_export.quantize.session import Session
from cwic_export.runners import (
    ArtefactRunner,
    EagerRunner,
    ExportedProgramRunner,
    OnnxRunner,
    TorchScriptRunner,
    value_margins,
)
from cwic_export.validation import run, validate_bundle
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.entropy import fit_entropy_model
from cwic_training.model import CodecNetwork

from .conftest import VALUES, content

FORMS: dict[str, tuple[str, type[ArtefactRunner]]] = {
    "onnx": ("onnx", OnnxRunner),
    "torchscript": ("torchscript.pt", TorchScriptRunner),
    "exported-program": ("pt2", ExportedProgramRunner),
}


@pytest.fixture(scope="module")
def dct() -> Checkpoint:
    """A new network, which is a DCT: pictures at every rate, unlike of random weights."""
    torch.manual_seed(0)
    network = CodecNetwork(VALUES).eval()
    importance = network.importance.get_parameter("conv3.weight")
    torch.nn.init.normal_(importance, std=0.5)  # else every level is the same
    return Checkpoint(VALUES, network.state_dict(), {"stage": "importance", "steps": 0})


@pytest.fixture(scope="module")
def fitted(dct: Checkpoint, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tables of a few steps."""
    release, _ = fit_entropy_model(dct, pictures, pictures, steps=20, batch=2, hidden=8)
    path = tmp_path_factory.mktemp("run") / "fitted.safetensors"
    save_checkpoint(path, release)
    return path


@pytest.fixture(scope="module")
def exported(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of the model with tables, by the command."""
    out = tmp_path_factory.mktemp("models") / "fitted"
    arguments = [str(fitted), "-o", str(out), "--formats", "onnx,onnx-fp16,torchscript"]
    done = CliRunner().invoke(export, arguments)
    assert done.exit_code == 0, done.output
    return Bundle.load(out)


@pytest.fixture(scope="module")
def sent(
    values_network: CodecNetwork, codes_and_levels: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Whole numbers as bytes, uint8 [2, 16, 5, 7], and levels 0..8."""
    return content(values_network, codes_and_levels)


def quantiser_of(network: CodecNetwork) -> Quantiser:
    found = network.quantiser
    assert found is not None
    first = np.repeat(np.array(found.first_levels, np.uint8), found.sizes)
    return Quantiser(found.steps.numpy(), first)


# ---- Bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "whole"),
    [
        (0.0, 32768),
        (1.0, 33792),
        (-1.0, 31744),
        (0.5 / 1024, 32768),  # half to even
        (1.5 / 1024, 32770),
        (-0.6 / 1024, 32767),
        (31.999, 65535),
        (32.5, 65535),
        (1e6, 65535),
        (-32.0, 0),
        (-32.1, 0),
        (-1e6, 0),
    ],
)
def test_values_become_fixed_point(values_network: CodecNetwork, y: float, whole: int) -> None:
    e = torch.zeros(1, 16, 2, 3)
    e[0, 5, 1, 2] = y
    codes = packing_of(values_network).pack(e)
    assert (codes.dtype, codes.shape) == (torch.uint8, (1, 32, 2, 3))
    assert (int(codes[0, 5, 1, 2]), int(codes[0, 21, 1, 2])) == divmod(whole, 256)
    codes[0, 5, 1, 2], codes[0, 21, 1, 2] = 128, 0
    assert (codes[:, :16] == 128).all()
    assert not codes[:, 16:].any()


def test_what_is_sent_of_the_bytes_are_the_values_in_steps(
    values_network: CodecNetwork, image: Tensor
) -> None:
    """The runtime's quantiser on packed bytes and training's on floats: the same, off borders."""
    graph, quantiser = EncoderGraph(values_network), values_network.quantiser
    assert quantiser is not None
    y, _ = graph.analyse(image)
    codes, _ = graph(image)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 9, (2, 12, 16), np.uint8)
    wanted = quantiser.quantised(y, torch.from_numpy(levels.astype(np.int64))).numpy()
    own = quantiser_of(values_network)
    for number in range(2):
        found = own.quantised(codes[number].numpy(), levels[number]).astype(int) - 128
        steps = quantiser.steps.numpy()[np.maximum(levels[number], 1)]
        off = np.abs(np.abs(y[number].numpy() / steps % 1) - 0.5) * steps
        clear = off > 1 / 1024
        assert clear.mean() > 0.95
        assert np.array_equal(found[clear], wanted[number][clear])
        assert np.abs(found - wanted[number]).max() <= 1
    assert np.unique(wanted).size > 8


def test_bytes_become_steps_of_their_level(
    values_network: CodecNetwork, sent: tuple[Tensor, Tensor]
) -> None:
    codes, levels = sent
    quantiser = values_network.quantiser
    assert quantiser is not None
    z = packing_of(values_network).unpack(codes, levels)
    assert z.dtype == torch.float32
    assert torch.equal(z, quantiser.restored(codes.float() - 128, levels.long()))
    assert not z.permute(0, 2, 3, 1)[levels == 0].any()
    assert z.permute(0, 2, 3, 1)[levels == 8].any()


@pytest.mark.parametrize("level", [9, 10, 127, 128, 255])
def test_levels_above_the_highest_count_as_it(
    values_network: CodecNetwork, sent: tuple[Tensor, Tensor], level: int
) -> None:
    codes = sent[0]
    above, highest = (torch.full((2, 5, 7), k, dtype=torch.uint8) for k in (level, 8))
    packing = packing_of(values_network)
    assert torch.equal(packing.unpack(codes, above), packing.unpack(codes, highest))
    g = torch.ones(2, 16, 5, 7)
    assert torch.equal(packing.by_code(g, above), packing.by_code(g, highest))


# ---- Graphs ---------------------------------------------------------------------------------


def test_the_encoder_is_the_network(values_network: CodecNetwork, image: Tensor) -> None:
    graph = EncoderGraph(values_network)
    with torch.no_grad():
        y, p = values_network.encode(image.permute(0, 3, 1, 2).float() / 255)
        own_y, own_p = graph.analyse(image)
        codes, importance = graph(image)
    assert codes.shape == (2, 32, 12, 16)
    torch.testing.assert_close(own_y, y, rtol=1e-4, atol=1e-4)
    whole = codes[:, :16].int() * 256 + codes[:, 16:].int() - 32768
    np.testing.assert_allclose(whole / 1024, y, atol=6e-4)
    torch.testing.assert_close(own_p, p)
    np.testing.assert_allclose(importance, p[:, 0].numpy() * 255, atol=0.51)
    assert y.std() > 0.5, "a picture of nothing tells nothing"


@pytest.mark.parametrize("decomposed", [False, True])
def test_the_decoder_is_the_network(
    values_network: CodecNetwork, sent: tuple[Tensor, Tensor], decomposed: bool
) -> None:
    codes, levels = sent
    assert values_network.quantiser is not None
    steps = values_network.quantiser.steps.numpy()
    restored = (codes.numpy().astype(np.float32) - 128) * steps[levels.numpy()][:, None]
    with torch.no_grad():
        x = values_network.decode(torch.from_numpy(restored))
        image = DecoderGraph(values_network, decomposed=decomposed)(codes, levels)
    assert image.shape == (2, 40, 56, 3)
    np.testing.assert_allclose(image, 255 * x.clamp(0, 1).permute(0, 2, 3, 1), atol=0.51)
    assert image.float().std() > 20


def test_cost_counts_the_channels_of_values(values_network: CodecNetwork) -> None:
    encode = 9 * 192 * 32 + 9 * 32 + 2 * 32 * 32 + 32 * 16 + 9 * 32 * 64 + 9 * 64 * 64 + 64
    decode = 16 * 32 + 9 * 32 + 2 * 32 * 32 + 9 * 32 * 192
    found = macs.encoder_cost(EncoderGraph(values_network)).kmac_per_px
    assert found == pytest.approx(encode / 64 / 1000)
    cost = macs.decoder_cost(DecoderGraph(values_network))
    assert cost.kmac_per_px == pytest.approx(decode / 64 / 1000)
    assert cost.parameters == sum(p.numel() for p in values_network.synthesis.parameters())


# ---- The gradient ---------------------------------------------------------------------------


def test_the_gradient_is_that_of_whole_numbers(
    values_network: CodecNetwork, sent: tuple[Tensor, Tensor]
) -> None:
    """By autograd through the network itself; the clip to 0..255 is passed through."""
    codes, levels = sent
    torch.manual_seed(4)
    target = torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    gradient, error = GradientGraph(values_network)(codes, levels, target)
    quantiser = values_network.quantiser
    assert quantiser is not None
    q = (codes.float() - 128).requires_grad_()
    y = 255 * values_network.decode(quantiser.restored(q, levels.long()))
    off = y.detach().clamp(0, 255) - target.permute(0, 3, 1, 2)
    (own,) = torch.autograd.grad((2 * off * y).sum(), q)
    assert gradient.shape == codes.shape
    torch.testing.assert_close(gradient, own, rtol=1e-4, atol=1e-4 * float(own.std()))
    by_position = off.square().sum(1).unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).sum((2, 4))
    torch.testing.assert_close(error, by_position, rtol=1e-5, atol=1e-2)
    assert not gradient.permute(0, 2, 3, 1)[levels == 0].any()
    assert (gradient.permute(0, 2, 3, 1)[levels > 0] != 0).float().mean() > 0.99


def test_the_gradient_says_how_the_error_changes(values_network: CodecNetwork) -> None:
    """Against the error of numbers one larger and one smaller, in a picture without a clip."""
    graph = GradientGraph(values_network)
    with torch.no_grad():  # or the first layers' parts of a block would turn on and off
        for name, parameter in graph.named_parameters():
            if name.endswith("down.weight"):
                parameter.zero_()
    codes = torch.full((1, 16, 3, 4), 128, dtype=torch.uint8)
    codes[0, :3] += torch.randint(0, 3, (3, 3, 4), dtype=torch.uint8)
    levels = torch.tensor([[[8, 5, 7, 8], [6, 8, 5, 6], [7, 7, 8, 5]]], dtype=torch.uint8)
    target = torch.full((1, 24, 32, 3), 120, dtype=torch.uint8)
    gradient, _ = graph(codes, levels, target)
    for place in [(0, 0, 0), (1, 1, 2), (5, 2, 3), (15, 1, 1)]:
        errors = []
        for by in (1, -1):
            moved = codes.clone()
            moved[(0, *place)] += by
            errors.append(float(graph(moved, levels, target)[1].double().sum()))
        # The error is a parabola: its slope in the middle is that between the ends.
        wanted = (errors[0] - errors[1]) / 2
        assert float(gradient[(0, *place)]) == pytest.approx(wanted, rel=2e-3, abs=0.5)


# ---- Files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FORMS)
def runner(request: pytest.FixtureRequest, values_bundle: Bundle) -> ArtefactRunner:
    suffix, kind = FORMS[request.param]
    return kind.from_bytes(*(values_bundle.read(f"{r}.{suffix}") for r in ("encoder", "decoder")))


@pytest.mark.parametrize("sides", [(16, 64), (96, 128)], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_every_form_does_what_eager_does(
    values_network: CodecNetwork,
    runner: ArtefactRunner,
    image: Tensor,
    sides: tuple[int, int],
    batch: int,
) -> None:
    """TorchScript and programs bit for bit; ONNX may add in another order."""
    part = image[:batch, : sides[0], : sides[1]].contiguous()
    exact = not isinstance(runner, OnnxRunner)
    with torch.no_grad():
        y, _ = EncoderGraph(values_network).analyse(part)
        codes, importance = EncoderGraph(values_network)(part)
    own_codes, own_importance = runner.encode(part.numpy())
    if exact:
        np.testing.assert_array_equal(own_codes, codes)
        np.testing.assert_array_equal(own_importance, importance)
    high, low = own_codes.reshape(batch, 2, 16, *own_codes.shape[2:]).transpose(1, 0, 2, 3, 4)
    np.testing.assert_allclose((high * 256.0 + low - 32768) / 1024, y, atol=6e-4)
    np.testing.assert_allclose(own_importance, importance, atol=0 if exact else 1)


@pytest.mark.parametrize("batch", [1, 2])
def test_every_form_decodes_as_eager_does(
    values_network: CodecNetwork,
    runner: ArtefactRunner,
    sent: tuple[Tensor, Tensor],
    batch: int,
) -> None:
    codes, levels = (part[:batch] for part in sent)
    levels = levels.clone()
    levels[0, 4, 6] = 200
    with torch.no_grad():
        picture = DecoderGraph(values_network)(codes, levels).numpy().astype(int)
    own = runner.decode(codes.numpy(), levels.numpy())
    largest = 1 if isinstance(runner, OnnxRunner) else 0
    assert np.abs(own - picture).max() <= largest


def test_the_gradient_file(
    values_network: CodecNetwork, values_bundle: Bundle, sent: tuple[Tensor, Tensor]
) -> None:
    codes, levels = sent
    torch.manual_seed(4)
    target = torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    wanted, wanted_error = GradientGraph(values_network)(codes, levels, target)
    runner = OnnxRuntimeRunner(values_bundle)
    gradient, error = runner.gradient(codes.numpy(), levels.numpy(), target.numpy())
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))
    np.testing.assert_allclose(error, wanted_error, rtol=1e-4)


def test_onnx_files_need_no_operator_of_their_own(values_bundle: Bundle) -> None:
    for role, channels in (("encoder", 32), ("decoder", 16), ("gradient", 16)):
        model = onnx.load_from_string(values_bundle.read(f"{role}.onnx"))
        onnx.checker.check_model(model, full_check=True)
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        ports = {p.name: p for p in (*model.graph.input, *model.graph.output)}
        shape = ports["codes"].type.tensor_type.shape.dim
        assert [d.dim_value or d.dim_param for d in shape][:2] == ["N", channels]


def test_half_precision_is_near(
    values_network: CodecNetwork, values_bundle: Bundle, image: Tensor, sent: tuple[Tensor, Tensor]
) -> None:
    names = [f"{role}.fp16.onnx" for role in ("encoder", "decoder")]
    runner = OnnxRunner.from_bytes(*map(values_bundle.read, names))
    own = quantiser_of(values_network)
    levels = np.full((12, 16), 5, np.uint8)
    reference = EncoderGraph(values_network)(image)[0].numpy()
    codes, _ = runner.encode(image.numpy())
    numbers = [[own.quantised(part, levels) for part in made] for made in (reference, codes)]
    off = np.abs(np.array(numbers[0], int) - np.array(numbers[1], int))
    assert off.max() <= 1
    assert off.mean() < 0.01
    assert not np.array_equal(codes, reference)
    picture = DecoderGraph(values_network)(*sent).numpy().astype(int)
    assert np.abs(runner.decode(*(part.numpy() for part in sent)) - picture).max() <= 3


def test_the_manifest_tells_the_kind_of_codes(values_bundle: Bundle, bundle: Bundle) -> None:
    assert (values_bundle.codes, bundle.codes) == ("values", "signs")
    assert (values_bundle.n, values_bundle.levels) == (16, 8)
    assert (values_bundle.decoder_channels, bundle.decoder_channels) == (16, 2)
    facts = values_bundle.facts
    assert facts["model"]["codes"] == "values"
    tables = load(values_bundle.read("context.safetensors"))
    assert np.array_equal(tables["values.steps"], CodecNetwork(VALUES).quantiser.steps)  # type: ignore[union-attr]


# ---- Identity -------------------------------------------------------------------------------


@pytest.mark.parametrize("tensor", ["quantiser.log_gain", "synthesis.1.weight"])
def test_another_decoder_is_another_model(values_checkpoint: Path, tensor: str) -> None:
    original = load_checkpoint(values_checkpoint)
    tensors = {k: v.clone() for k, v in original.tensors.items()}
    tensors[tensor].view(-1)[0] += 0.5
    assert model_id(dataclasses.replace(original, tensors=tensors)) != model_id(original)


def test_every_table_and_the_steps_make_another_model(values_checkpoint: Path) -> None:
    original = load_checkpoint(values_checkpoint)
    assert {"values.steps", "values.bits", "values.0.line"} <= original.entropy.keys()
    seen = {model_id(original)}
    changed = 0
    for name, table in original.entropy.items():
        if not table.numel():
            continue  # group 0 has no earlier values
        other = torch.from_numpy(table.numpy().copy())
        flat = other.numpy().reshape(-1)
        flat[-1] = flat[-1] * 2 if other.is_floating_point() else flat[-1] ^ 1
        seen.add(model_id(dataclasses.replace(original, entropy={**original.entropy, name: other})))
        changed += 1
    assert len(seen) == changed + 1


def test_the_encoder_plays_no_part(values_checkpoint: Path) -> None:
    original = load_checkpoint(values_checkpoint)
    tensors = {k: v.clone() for k, v in original.tensors.items()}
    for name in ("projection.weight", "trunk.2.weight", "importance.conv3.weight"):
        tensors[name].view(-1)[0] += 1
    assert model_id(dataclasses.replace(original, tensors=tensors)) == model_id(original)


# ---- Margins --------------------------------------------------------------------------------


def sent_of(y: NDArray[np.float32], step: float) -> NDArray[np.uint8]:
    """What the runtime makes of values [n] in steps of one size."""
    codes = packing_of_values(y)
    quantiser = Quantiser(np.array([0, step], np.float32), np.ones(len(y), np.uint8))
    return quantiser.quantised(codes, np.ones((1, 1), np.uint8))[:, 0, 0]


def packing_of_values(y: NDArray[np.float32]) -> NDArray[np.uint8]:
    whole = np.clip(np.rint(y.astype(np.float64) * 1024) + 32768, 0, 65535).astype(np.uint16)
    return np.concatenate([whole >> 8, whole & 255]).astype(np.uint8)[:, None, None]


@pytest.mark.parametrize("step", [0.10423, 0.25, 1.7, 4.4])
def test_a_value_may_move_by_its_margin_and_no_further(step: float) -> None:
    """Up to the last number; on borders and in the middle between them, too."""
    rng = np.random.default_rng(0)
    largest = (min(31.9 // step, 127) - 0.5) * step
    places = np.arange(-12, 13) / 2 * step
    y = np.concatenate([rng.uniform(-largest, largest, 4000), places]).astype(np.float32)
    margin = value_margins(y, step).astype(np.float64)
    before = sent_of(y, step).astype(int)
    assert margin.min() >= 0
    assert margin.max() <= step / 2 + 1 / 1024
    assert margin.max() > 0.4 * step
    fine = 2e-6 + 1e-6 * np.abs(y)  # of float32
    for sign in (1, -1):
        within = (y + sign * np.maximum(margin - fine, 0)).astype(np.float32)
        moves = margin > fine
        assert np.array_equal(sent_of(within, step)[moves], before[moves])
    beyond = [
        sent_of((y + sign * (margin + fine)).astype(np.float32), step).astype(int) - before
        for sign in (1, -1)
    ]
    assert (np.abs(np.array(beyond)).max(0) == 1).all()


@pytest.mark.parametrize(("y", "step"), [(127.0, 0.1), (-30.0, 0.1), (31.9, 4.4)])
def test_beyond_the_last_number_only_the_way_back_counts(y: float, step: float) -> None:
    last = min(127, round(31.999 / step))
    wanted = abs(y) - (last - 0.5) * step
    assert float(value_margins(np.array([y], np.float32), step)[0]) == pytest.approx(
        wanted, abs=1 / 1024
    )


def test_margins_of_a_picture_are_those_of_the_finest_step(
    values_network: CodecNetwork, image: Tensor
) -> None:
    runner, quantiser = EagerRunner(values_network), values_network.quantiser
    assert quantiser is not None
    y, _ = EncoderGraph(values_network).analyse(image)
    margins = runner.margins(image.numpy())
    assert margins.shape == y.shape
    assert np.array_equal(margins, value_margins(y.numpy(), float(quantiser.steps[8])))
    assert runner.decided_at_once == 16


# ---- Whole models ---------------------------------------------------------------------------


def test_validation(exported: Bundle, fitted: Path, pictures: list[Path]) -> None:
    report = validate_bundle(exported.path, fitted, pictures)
    assert report.passed, report.problems()
    assert [a.label for a in report.artefacts] == ["onnx fp32", "onnx fp16", "torchscript fp32"]
    fp32, fp16, torchscript = (a.differences for a in report.artefacts)
    assert torchscript.flips == 0
    assert fp32.codes == 16 * (12 * 16 + 15 * 13)
    assert fp16.flips > 0
    bpp = [rate.mean("own_bpp") or 0 for rate in fp32.by_scale]
    kept = [rate.total("kept_codes") for rate in fp32.by_scale]
    assert 0 < bpp[0] < bpp[1] < bpp[2]
    assert 0 < kept[0] < kept[1] <= kept[2] <= fp32.codes
    assert {d.graph for d in report.artefacts[1].departures} == {"encoder", "decoder"}


def test_a_wrong_step_is_found(
    exported: Bundle,
    fitted: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To export the reference again takes seconds.
    graphs = {role: exported.read(f"{role}.onnx") for role in ("encoder", "decoder")}
    monkeypatch.setattr(run, "_reference_graphs", lambda *_: graphs)
    model = onnx.load_from_string(graphs["decoder"])
    (steps,) = (t for t in model.graph.initializer if list(t.dims) == [9])
    array = onnx.numpy_helper.to_array(steps) * np.float32(1.1)
    steps.CopyFrom(onnx.numpy_helper.from_array(array, steps.name))
    path = shutil.copytree(exported.path, tmp_path / "changed")
    (path / "decoder.onnx").write_bytes(model.SerializeToString())
    files = {
        name: entry
        for name, entry in exported.files.items()
        if entry.target == "cwic" or (entry.target, entry.precision) == ("onnx", "fp32")
    }
    files["decoder.onnx"] = FileEntry.of(
        path / "decoder.onnx", role="decoder", target="onnx", precision="fp32"
    )
    dataclasses.replace(exported, path=path, files=files).save()
    report = validate_bundle(path, fitted, pictures[:1], scales=[1.0])
    assert not report.passed
    assert "mean difference of pixels" in "\n".join(report.problems())


def test_files_hold_what_the_encoder_gave(
    exported: Bundle, fitted: Path, pictures: list[Path]
) -> None:
    """From pixels to bytes and back: whole numbers of the levels, and a better picture for more."""
    codec = cwic.load(exported.path, "cpu")
    pixels = open_rgb(pictures[0])
    codes, _ = codec.runner.encode(pixels[None])
    quantiser = quantiser_of(load_checkpoint(fitted).network())
    errors, sizes = [], []
    for quality in (40, 65, 90):
        made = codec.encode_detailed(pixels, quality=quality)
        sent, levels = codec.read_codes(Stream.from_bytes(made.data))
        assert np.array_equal(sent, quantiser.quantised(codes[0], levels))
        errors.append(np.square(np.asarray(codec.decode(made.data)) - pixels.astype(float)).mean())
        sizes.append(len(made.data))
    assert all(a > b for a, b in pairwise(errors))
    assert all(a < b for a, b in pairwise(sizes))


def test_int8_is_scored_on_what_is_sent(values_bundle: Bundle, pictures: list[Path]) -> None:
    encoder, decoder = (
        Session(values_bundle.read(f"{role}.onnx")) for role in ("encoder", "decoder")
    )
    entropy = cwic.load(values_bundle.path, "cpu").context
    qualities = QualityScale(values_bundle.quality_scales)
    scorer = Scorer(encoder, decoder, entropy, qualities, open_pictures(pictures))
    for role, session in (("encoder", encoder), ("decoder", decoder)):
        score = scorer.score(role, session)  # type: ignore[arg-type]
        assert (score.flip_share, score.loss_db, score.mean_loss_db) == (0.0, 0.0, 0.0)
    feeds = list(scorer.feeds("decoder"))
    assert {feed["codes"].shape[1] for feed in feeds} == {16}
    assert max(int(feed["levels"].max()) for feed in feeds) > 2
