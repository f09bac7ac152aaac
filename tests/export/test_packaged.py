"""Every model in the package is the export of the checkpoint of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwic import packaged
from cwic_export.validation import validate_bundle

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", packaged.names())
def test_it_does_what_the_checkpoint_does(name: str) -> None:
    report = validate_bundle(
        packaged.folder(name),
        ROOT / "models" / f"{name}.safetensors",
        [ROOT / "assets" / "kodim23.png"],
        scales=(0.5,),
        crop_px=192,
    )
    assert report.name == name
    assert report.passed
    assert {a.label for a in report.artefacts} == {"onnx fp32"}
