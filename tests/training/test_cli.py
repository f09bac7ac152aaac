"""``cwic train``: options reach the library, results are printed, errors pass through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tests.training.conftest import VALUES

from cwic.entropy_model import ContextModel
from cwic.errors import CheckpointError, CwicError, TrainingError
from cwic_training import cli
from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import PRESETS, ModelConfig
from cwic_training.fit import FitResult
from cwic_training.recipe import Recipe


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.train, [str(a) for a in arguments])


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command passes to :func:`fit`, which does nothing here."""
    seen: dict[str, Any] = {}

    def fit(config: Any, recipe: Recipe, **options: Any) -> FitResult:
        seen.update(options, config=config, recipe=recipe)
        return FitResult(recipe.steps, False, options["folder"])

    monkeypatch.setattr("cwic_training.fit.fit", fit)
    return seen


GLOBS = ("--train-glob", "t/*", "--valid-glob", "v/*", "-o", "run")
RECIPES = {
    "signs": Recipe(),
    "values": Recipe(
        batch=4,
        crop=192,
        ms_ssim=0.5,
        rate_weight=253.0,
        rate_model="values",
        scale_min=0.15,
        scale_max=2.0,
        muon_lr=0.003,
        adam_lr=0.001,
    ),
}
"""What stage `importance` does by default, by the codes of the model."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., FitResult]) -> Path:
    """A run of one step with each kind of codes, in folders of their names."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "signs", steps=1)
    train(folder / "values", config=VALUES, steps=1, rate_model="values", rate_weight=253.0)
    return folder


def test_options_default_to_the_recipe(passed: dict[str, Any]) -> None:
    assert invoke("importance", *GLOBS).exit_code == 0
    assert passed["recipe"] == RECIPES["values"]
    assert passed == passed | {
        "config": None,
        "train_glob": "t/*",
        "valid_glob": "v/*",
        "folder": Path("run"),
        "initial": None,
        "resume": None,
        "workers": 0,
        "memory_bytes": None,
        "save_minutes": 5.0,
        "accelerator": "auto",
        "progress": True,
    }
    assert invoke("main", *GLOBS).exit_code == 0
    assert passed["recipe"] == Recipe(stage="main")


def test_every_option_arrives(passed: dict[str, Any]) -> None:
    result = invoke(
        *("importance", "--train_glob", "a", "--valid_glob", "b", "--out", "c"),
        *("--model", "base", "--init", "i", "--resume", "r", "--steps", 11, "--cooldown", 0.5),
        *("--batch", 3, "--crop", 200, "--muon-lr", 0.1, "--adam-lr", 0.2, "--seed", 4),
        *("--precision", "32-true", "--validate-every", 6, "--save-minutes", 0.5),
        *("--workers", 2, "--memory-gb", 1.5, "--accelerator", "cpu", "--no-progress"),
        *("--rate-weight", 7, "--rate-bpp", 0.4, "--scale-min", 0.2, "--scale-max", 0.9),
        *("--rate-model", "context", "--ms-ssim", 0.25),
    )
    assert result.exit_code == 0, result.output
    assert passed == {
        "config": PRESETS["base"],
        "recipe": Recipe(
            stage="importance",
            steps=11,
            cooldown=0.5,
            batch=3,
            crop=200,
            ms_ssim=0.25,
            rate_weight=7.0,
            rate_model="context",
            rate_bpp=0.4,
            scale_min=0.2,
            scale_max=0.9,
            muon_lr=0.1,
            adam_lr=0.2,
            seed=4,
            precision="32-true",
            validate_every=6,
        ),
        "train_glob": "a",
        "valid_glob": "b",
        "folder": Path("c"),
        "initial": Path("i"),
        "resume": Path("r"),
        "workers": 2,
        "memory_bytes": 1_500_000_000,
        "save_minutes": 0.5,
        "accelerator": "cpu",
        "progress": False,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_the_codes_of_the_model_choose_the_defaults(passed: dict[str, Any], name: str) -> None:
    assert invoke("importance", *GLOBS, "--model", name).exit_code == 0
    assert passed["config"] == PRESETS[name]
    assert passed["recipe"] == RECIPES[PRESETS[name].codes]


@pytest.mark.parametrize("codes", RECIPES)
@pytest.mark.parametrize(
    ("option", "file"), [("--init", "last.safetensors"), ("--resume", "last.ckpt")]
)
def test_the_codes_of_a_checkpoint_choose_the_defaults(
    passed: dict[str, Any], runs: Path, codes: str, option: str, file: str
) -> None:
    result = invoke("importance", *GLOBS, option, runs / codes / file)
    assert result.exit_code == 0, result.output
    assert passed["recipe"] == RECIPES[codes]
    assert passed["config"] is None


def test_a_model_that_is_named_counts_more_than_a_checkpoint(
    passed: dict[str, Any], runs: Path
) -> None:
    initial = runs / "values" / "last.safetensors"
    assert invoke("importance", *GLOBS, "--init", initial, "--model", "nano-signs").exit_code == 0
    assert passed["recipe"] == RECIPES["signs"]


@pytest.mark.parametrize("codes", RECIPES)
def test_an_option_counts_more_than_a_default(passed: dict[str, Any], codes: str) -> None:
    """Zeros, and what is the default of the other codes, are options as well."""
    model = {"signs": "nano-signs", "values": "nano"}[codes]
    options = ("--ms-ssim", 0, "--adam-lr", 0, "--batch", 16, "--scale-max", 2, "--crop", 64)
    assert invoke("importance", *GLOBS, "--model", model, *options).exit_code == 0
    assert passed["recipe"] == replace(
        RECIPES[codes], ms_ssim=0.0, adam_lr=0.0, batch=16, scale_max=2.0, crop=64
    )


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("--batch", "4; for models of signs 16"),
        ("--crop", "192; for models of signs 128"),
        ("--muon-lr", "0.003; for models of signs 0.005"),
        ("--adam-lr", "0.001; for models of signs 0.0008"),
        ("--rate-weight", "253.0; for models of signs 20.0"),
        ("--rate-model", "values; for models of signs count"),
        ("--ms-ssim", "0.5; for models of signs 0.0"),
        ("--scale-min", "0.15; for models of signs 0.08"),
        ("--scale-max", "2.0; for models of signs 1.5"),
    ],
)
def test_help_shows_both_defaults(option: str, default: str) -> None:
    words = " ".join(invoke("importance", "--help").output.split())
    shown = words.partition(f" {option} ")[2].partition("[default: ")[2].partition("]")[0]
    assert shown.strip("()") == default


@pytest.mark.parametrize(
    ("stage", "model", "batch"),
    [("main", "nano-signs", "(16)"), ("importance", "nano", "(4; for models of signs 16)")],
)
def test_help_names_the_defaults_of_the_stage(stage: str, model: str, batch: str) -> None:
    words = " ".join(invoke(stage, "--help").output.split())
    assert f"else {model}." in words
    assert f"Crops per step. [default: {batch}]" in words


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["importance", "--rate-model", "context"], "; use --rate-model values"),
        (["importance", "--rate-model", "count"], "; use --rate-model values"),
        (["main", "--model", "nano"], "; use stage importance"),
        (["importance", "--model", "nano-signs", "--rate-model", "values"], "or --model nano"),
        (["importance", "--rate-bpp", 0.5], "; leave out --rate-bpp"),
        (["importance", "--rate-weight", 0], "--rate-weight 253"),
    ],
)
def test_what_values_are_not_trained_with(
    tmp_path: Path, photos: Any, arguments: list[object], remedy: str
) -> None:
    result = invoke(
        *arguments, "--train-glob", photos.train, "--valid-glob", photos.valid, "-o", tmp_path
    )
    assert isinstance(result.exception, TrainingError)
    assert str(result.exception).endswith(remedy)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("option", "file", "remedy"),
    [
        ("--init", "last.safetensors", "; use stage importance"),
        ("--resume", "last.ckpt", "; resume with the options it began with"),
    ],
)
def test_a_checkpoint_of_values_has_no_stage_main(
    tmp_path: Path, photos: Any, runs: Path, option: str, file: str, remedy: str
) -> None:
    globs = ("--train-glob", photos.train, "--valid-glob", photos.valid)
    result = invoke("main", *globs, "-o", tmp_path, option, runs / "values" / file)
    assert isinstance(result.exception, CwicError)
    assert str(result.exception).endswith(remedy)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("stage", ["main", "importance", "entropy"])
@pytest.mark.parametrize("missing", ["--train-glob", "--valid-glob", "-o"])
def test_globs_and_output_are_required(passed: dict[str, Any], stage: str, missing: str) -> None:
    arguments = list(GLOBS)
    at = arguments.index(missing)
    del arguments[at : at + 2]
    result = invoke(stage, *(["x.safetensors"] if stage == "entropy" else []), *arguments)
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.output


@pytest.mark.parametrize(
    "option",
    [("--model", "large"), ("--steps", "many"), ("--seed", "-1"), ("--precision", "64-true")],
)
def test_a_wrong_value_is_wrong_usage(passed: dict[str, Any], option: tuple[str, str]) -> None:
    assert invoke("main", *GLOBS, *option).exit_code == 2
    assert not passed


def test_an_unknown_rate_model_is_wrong_usage(passed: dict[str, Any]) -> None:
    assert invoke("importance", *GLOBS, "--rate-model", "bits").exit_code == 2
    assert not passed


@pytest.mark.parametrize("option", [("--rate-bpp", 0.5), ("--rate-model", "context")])
def test_rates_are_of_the_importance_stage(
    passed: dict[str, Any], option: tuple[str, object]
) -> None:
    assert invoke("main", *GLOBS, *option).exit_code == 2


@pytest.mark.parametrize("stopped", [False, True])
def test_the_result_is_one_line(monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
    monkeypatch.setattr(
        "cwic_training.fit.fit", lambda *_, **__: FitResult(9, stopped, Path("run"))
    )
    result = invoke("main", *GLOBS)
    assert result.exit_code == 0
    assert result.output == (
        "stopped after step 9; go on with --resume run/last.ckpt\n"
        if stopped
        else "9 steps done; weights in run/best.safetensors\n"
    )


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["main", *GLOBS], TrainingError),
        (["main", *GLOBS, "--crop", 20], TrainingError),
        (["importance", *GLOBS, "--init", "none"], CheckpointError),
        (["importance", *GLOBS, "--resume", "none"], CheckpointError),
        (["entropy", "none.safetensors", *GLOBS], CheckpointError),
    ],
)
def test_errors_are_the_librarys(arguments: list[object], kind: type[CwicError]) -> None:
    """The command ``cwic`` prints them; nothing here swallows or wraps one."""
    assert type(invoke(*arguments).exception) is kind


@pytest.mark.parametrize(
    ("codes", "stage", "table"),
    [("signs", "main", "codes.own"), ("values", "importance", "values.1.last")],
)
def test_all_stages_one_after_the_other(
    tmp_path: Path,
    photos: Any,
    tiny: ModelConfig,
    train: Callable[..., FitResult],
    codes: str,
    stage: str,
    table: str,
) -> None:
    """A stage, importance from its weights, more of it, then the entropy model, as a user would."""
    config, price = (VALUES, "values") if codes == "values" else (tiny, "count")
    train(tmp_path / "first", config=config, stage=stage, rate_model=price, steps=2)
    shared = ["--train-glob", photos.train, "--valid-glob", photos.valid]
    small = ["--steps", 2, "--batch", 2, "--crop", 32, "--ms-ssim", 0]
    small += ["--accelerator", "cpu", "--no-progress"]
    initial = tmp_path / "first" / "last.safetensors"
    result = invoke("importance", *shared, *small, "-o", tmp_path / "i", "--init", initial)
    assert result.exit_code == 0, result.output
    best = tmp_path / "i" / "best.safetensors"
    assert result.output.endswith(f"2 steps done; weights in {best}\n")
    resume = ["--resume", best.parent / "last.ckpt", "--steps", 3]
    result = invoke("importance", *shared, *small, "-o", best.parent, *resume)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(f"3 steps done; weights in {best}\n")

    release = tmp_path / "release" / "model.safetensors"
    outputs = []
    for seed in ("0", "0", "1"):
        options = ["-o", release, "--seed", seed, "--steps", 3, "--batch", 1]
        result = invoke("entropy", best, *shared, *options)
        assert result.exit_code == 0, result.output
        outputs.append(load_checkpoint(release).entropy[table])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    further = tmp_path / "release" / "further.safetensors"
    options = ["-o", further, "--init", release, "--steps", 1, "--batch", 1]
    assert invoke("entropy", best, *shared, *options).exit_code == 0
    changed = load_checkpoint(further).entropy[table].int() - outputs[2].int()
    assert changed.abs().max() <= 1, "not from the network of the release"

    codes, levels, progressive, where = result.stdout.splitlines()
    loaded = load_checkpoint(release)
    report = loaded.training["entropy"]
    assert report["steps"] == 3
    assert codes == (
        f"codes: {report['bits_per_code']:.4f} bits per code "
        f"({report['bits_per_code_network']:.4f} by the network that was frozen), "
        f"{report['codes_bpp']:.4f} bpp"
    )
    assert levels == (
        f"levels: {report['bits_per_level']:.4f} bits per level, {report['levels_bpp']:.4f} bpp"
    )
    assert progressive == (
        f"a progressive stream takes {report['progressive_ratio']:.4f} times as much"
    )
    assert where == f"weights and tables in {release}"
    wanted = load_checkpoint(best).rounded_to_half().tensors
    assert all(torch.equal(loaded.tensors[k], wanted[k]) for k in wanted)
    tables = {name: tensor.numpy() for name, tensor in loaded.entropy.items()}
    ContextModel(tables, loaded.config.n, loaded.config.levels)


@pytest.mark.parametrize("option", ["--steps", "--batch"])
def test_an_entropy_stage_of_no_size_is_refused(
    tmp_path: Path, photos: Any, train: Callable[..., FitResult], option: str
) -> None:
    train(tmp_path, steps=1)
    result = invoke(
        *("entropy", tmp_path / "last.safetensors", "-o", tmp_path / "out.safetensors"),
        *("--train-glob", photos.train, "--valid-glob", photos.valid, option, 0),
    )
    assert isinstance(result.exception, TrainingError)
    assert not (tmp_path / "out.safetensors").exists()


def test_main_weights_have_no_importance_to_code(
    tmp_path: Path, photos: Any, train: Callable[..., FitResult]
) -> None:
    train(tmp_path, stage="main", steps=1)
    result = invoke(
        *("entropy", tmp_path / "last.safetensors", "-o", tmp_path / "out.safetensors"),
        *("--train-glob", photos.train, "--valid-glob", photos.valid),
    )
    assert isinstance(result.exception, CheckpointError)
    assert "cwic train importance" in str(result.exception)
    assert not (tmp_path / "out.safetensors").exists()
