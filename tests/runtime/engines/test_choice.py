"""Which engine is taken, and what is said about those that are not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cwic.bundle import Bundle, FileEntry
from cwic.engines.choice import choose
from cwic.engines.library import Kind
from cwic.engines.record import EngineRecord
from cwic.errors import BackendError, BundleError

VERSION = "10.3.0.26"


def add(
    bundle: Bundle,
    *,
    role: str = "encoder",
    kind: Kind = "tensorrt",
    version: str = VERSION,
    sm: str = "87",
    precision: str = "fp32",
    **changes: Any,
) -> str:
    """Put an engine of these properties into the bundle; its bytes do not matter here."""
    bundle = Bundle.load(bundle.path)
    name = f"{role}.sm{sm}-{kind}{version}-{precision}.engine"
    (bundle.path / name).write_bytes(b"plan")
    entry = FileEntry.of(bundle.path / name, role=role, target=kind, precision=precision)
    record = EngineRecord(
        kind=kind,
        library_version=version,
        sm=sm,
        gpu="Orin",
        precision=precision,
        profile={"image": ((1, 64, 64, 3), (1, 64, 64, 3), (1, 128, 128, 3))},
        onnx=f"{role}.onnx",
        onnx_sha256=bundle.files[f"{role}.onnx"].sha256,
        builder={},
        audit={},
    )
    engines = {
        **bundle.facts.get("engines", {}),
        name: dataclasses.replace(record, **changes).to_json(),
    }
    facts = {**bundle.facts, "engines": engines}
    dataclasses.replace(bundle, files={**bundle.files, name: entry}, facts=facts).save()
    return name


def chosen(bundle: Bundle, role: str = "encoder", **options: Any) -> tuple[str, EngineRecord]:
    wanted: dict[str, Any] = {"kind": "tensorrt", "version": VERSION, "sm": "87", **options}
    return choose(Bundle.load(bundle.path), role, **wanted)


def test_the_one_that_fits_is_taken(bundle: Bundle) -> None:
    name = add(bundle)
    for other in (
        {"sm": "86"},
        {"version": "10.7.0.23"},
        {"role": "decoder"},
        {"kind": "tensorrt-rtx"},
    ):
        add(bundle, **other)  # type: ignore[arg-type]
    found, record = chosen(bundle)
    assert found == name
    assert (record.sm, record.library_version) == ("87", VERSION)
    assert record.profile["image"][2] == (1, 128, 128, 3)
    assert Bundle.load(bundle.path).read(found) == b"plan"


@pytest.mark.parametrize(
    ("have", "precision", "taken"),
    [
        (("fp16", "int8", "fp32"), None, "fp32"),
        (("int8", "fp16"), None, "fp16"),
        (("int8",), None, "int8"),
        (("fp32", "int8"), "int8", "int8"),
    ],
)
def test_the_most_exact_precision_unless_one_is_named(
    bundle: Bundle, have: tuple[str, ...], precision: str | None, taken: str
) -> None:
    for each in have:
        add(bundle, precision=each)
    assert chosen(bundle, precision=precision)[1].precision == taken


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sm": "86"}, "is for SM 86, this GPU has SM 87"),
        ({"version": "10.7.0.23"}, "was built by version 10.7.0.23, here is 10.3.0.26"),
        ({"version": "10.3.0.27"}, "was built by version 10.3.0.27, here is 10.3.0.26"),
        ({"onnx_sha256": "0" * 64}, "is stale: encoder.onnx has changed since"),
        ({"onnx": "encoder.fp16.onnx"}, "is stale: encoder.fp16.onnx has changed"),
    ],
)
def test_an_engine_that_does_not_fit(bundle: Bundle, changes: dict[str, Any], reason: str) -> None:
    name = add(bundle, **changes)
    with pytest.raises(BackendError) as error:
        chosen(bundle)
    assert f"({name} {reason}" in str(error.value)
    assert str(error.value).endswith(f"; build it: cwic engine {bundle.path} --kind tensorrt")


def test_no_engine_at_all(bundle: Bundle) -> None:
    with pytest.raises(BackendError) as error:
        chosen(bundle, "decoder", kind="tensorrt-rtx", sm="120", precision="fp16")
    assert str(error.value) == (
        f"{bundle.path} has no tensorrt-rtx engine of the decoder that runs here (there is none); "
        f"build it: cwic engine {bundle.path} --kind tensorrt-rtx --sm 120 --precision fp16"
    )


def test_another_precision_is_no_substitute(bundle: Bundle) -> None:
    add(bundle)
    with pytest.raises(BackendError, match=r"is fp32, not int8\); build .* --precision int8$"):
        chosen(bundle, precision="int8")


def test_a_long_list_is_cut(bundle: Bundle) -> None:
    for sm in ("72", "75", "80", "86", "89"):
        add(bundle, sm=sm)
    with pytest.raises(BackendError, match=r"SM 80, this GPU has SM 87; and 2 more\); build"):
        chosen(bundle)


@pytest.mark.parametrize(
    "record",
    [
        None,
        "text",
        {},
        {"kind": "tensorrt"},
        {"profile": {"image": [[1, 2]]}},
        {"profile": 3},
        {"kind": "coreml"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_record_that_is_none(bundle: Bundle, record: Any) -> None:
    name = add(bundle)
    manifest = bundle.path / "model.json"
    values = json.loads(manifest.read_text())
    engines = values["facts"]["engines"]
    if record is None:
        del engines[name]
    elif isinstance(record, dict) and record and record != {"kind": "tensorrt"}:
        engines[name] = {**engines[name], **record}
    else:
        engines[name] = record
    manifest.write_text(json.dumps(values))
    damaged = Bundle.load(bundle.path)
    with pytest.raises(BundleError, match=rf"nothing usable about {name} .*; build it again: cwic"):
        EngineRecord.of(damaged, name)
    with pytest.raises(BackendError, match=rf"nothing usable about {name} .*; build it: cwic"):
        chosen(damaged)


def test_facts_that_are_no_engines(bundle: Bundle) -> None:
    name = add(bundle)
    damaged: tuple[Any, ...] = ([], None, "x")
    for engines in damaged:
        manifest = bundle.path / "model.json"
        values = json.loads(manifest.read_text())
        values["facts"]["engines"] = engines
        manifest.write_text(json.dumps(values))
        with pytest.raises(BackendError, match=rf"nothing usable about {name}"):
            chosen(bundle)


def test_records_survive_the_manifest(bundle: Bundle) -> None:
    name = add(bundle, precision="fp16")
    record = EngineRecord.of(Bundle.load(bundle.path), name)
    assert record.to_json() == {
        **Bundle.load(bundle.path).facts["engines"][name],
        "profile": {"image": ((1, 64, 64, 3), (1, 64, 64, 3), (1, 128, 128, 3))},
    }
