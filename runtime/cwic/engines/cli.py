"""``cwic engine``: parse, build, print."""

from __future__ import annotations

from pathlib import Path

import click

from cwic.engines.choice import PRECISIONS
from cwic.engines.library import KINDS, Kind
from cwic.engines.profile import DEFAULT_SIZES

__all__ = ["engine"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="Which ONNX files of the bundle to build from.",
)
@click.option(
    "--profile",
    "sizes",
    nargs=3,
    default=DEFAULT_SIZES,
    show_default=True,
    metavar="MIN OPT MAX",
    help="Picture sizes, HEIGHTxWIDTH in pixels.",
)
@click.option(
    "--batch", default=1, show_default=True, help="Engines take 1 to this many pictures a call."
)
@click.option(
    "--kind", type=click.Choice(KINDS), help="Default: TensorRT, or for RTX where it is missing."
)
@click.option("--sm", metavar="NN", help="Compute capability to build for, such as 86 (RTX only).")
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with TensorRT's measurements, read and written.",
)
@click.option(
    "--plugin", is_flag=True, help="Pack code bits with a CUDA kernel (TensorRT 10.9, nvcc)."
)
def engine(
    bundle: Path,
    precision: str,
    sizes: tuple[str, str, str],
    batch: int,
    kind: Kind | None,
    sm: str | None,
    timing_cache: Path | None,
    plugin: bool,
) -> None:
    """Build TensorRT engines from the ONNX files of BUNDLE and add them to it."""
    from cwic.bundle import Bundle
    from cwic.engines.build import build_engines, find_target
    from cwic.engines.library import load_library
    from cwic.engines.profile import Profile
    from cwic.engines.record import EngineRecord

    model = Bundle.load(bundle)
    profile = Profile.parse(sizes, batch=batch, stride=model.stride)
    target = find_target(load_library(kind), sm)
    click.echo(
        f"{target.library.title} for SM {target.sm} ({target.gpu or 'ahead of time'}), "
        f"{precision}, {profile}"
    )
    model, names = build_engines(
        model,
        target,
        precision=precision,
        profile=profile,
        timing_cache=timing_cache,
        with_plugin=plugin,
    )
    for name in names:
        record = EngineRecord.of(model, name)
        counts = ", ".join(f"{n} {dtype}" for dtype, n in record.audit["weighted"].items())
        click.echo(
            f"{model.path / name}: {model.files[name].bytes} bytes, convolutions {counts}, "
            f"{record.builder['seconds']:.1f} s"
        )
