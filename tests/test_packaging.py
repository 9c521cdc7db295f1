"""What is installed and shipped: dependency lists that agree, the wheel, the course, and files that parse."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clean_notebooks
import nbformat
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import renyi_lab
from renyi_lab.course import CERTIFICATE_FILE, NETWORK_FILE
from renyi_lab.course import _files as _course_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))

# Names on conda-forge, where they differ from those on PyPI.
CONDA_NAME = {"torch": "pytorch", "jupyter-client": "jupyter_client", "playwright": "playwright-python"}
PIP_ONLY = {"mnist1d"}  # not on conda-forge: installed by the `-e .[lab,test]` of the pip section
CONDA_ONLY = {"python", "pip"}
OPTIONAL = {"torchvision"}  # imported inside functions that raise an error when it is missing
CONDA_EXTRAS = ("lab", "test")  # what environment.yml is for
DATA = ("a_table.csv", "a_record.jsonl")  # files that a module reads are shipped beside it
COURSE_FILES = (CERTIFICATE_FILE, NETWORK_FILE, "README.md", "results/a_benchmark.json")
CUDA = re.compile(r"(nvidia|cuda)-|triton$")  # pinned by each CUDA build of torch itself

Tables = dict[str, Any]


@pytest.fixture
def pyproject() -> Tables:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def environment() -> Tables:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


@pytest.fixture
def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def requirements(pyproject: Tables, extras: tuple[str, ...] | None = None) -> list[Requirement]:
    """The package's dependencies and those of ``extras`` (default: all), which may refer to other extras."""
    project = pyproject["project"]
    todo = [*project["dependencies"], f"{project['name']}[{','.join(extras or project['optional-dependencies'])}]"]
    found: dict[str, Requirement] = {}
    while todo:
        requirement = Requirement(todo.pop(0))
        if requirement.name != project["name"]:
            found[str(requirement)] = requirement
        else:
            todo += [text for extra in sorted(requirement.extras) for text in project["optional-dependencies"][extra]]
    return list(found.values())


def disagreements(pyproject: Tables, environment: Tables) -> list[str]:
    """Each way in which environment.yml and pyproject.toml ask for different things."""
    pip_section = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    conda_section = [Requirement(entry) for entry in environment["dependencies"] if isinstance(entry, str)]
    conda = {requirement.name: requirement.specifier for requirement in conda_section}
    wanted = {"python": Requirement(f"python{pyproject['project']['requires-python']}").specifier}
    for requirement in requirements(pyproject, CONDA_EXTRAS):
        name = canonicalize_name(requirement.name)
        if name not in PIP_ONLY:
            wanted[CONDA_NAME.get(name, name)] = requirement.specifier
    found = []
    for name, specifier in wanted.items():
        if name not in conda:
            found.append(f"{name}{specifier} is in pyproject.toml, but environment.yml lacks it")
        elif conda[name] != specifier:
            found.append(f"{name}: pyproject.toml has '{specifier}', environment.yml '{conda[name]}'")
    found += [f"{name} is in environment.yml only" for name in conda.keys() - wanted.keys() - CONDA_ONLY]
    if pip_section != [[f"-e .[{','.join(CONDA_EXTRAS)}]"]]:
        found.append(f"the pip section must install the package itself and nothing else, not {pip_section}")
    return found


def test_conda_and_pip_ask_for_the_same_ranges(pyproject: Tables, environment: Tables) -> None:
    assert disagreements(pyproject, environment) == []


def test_every_range_admits_its_pin_on_each_python(pyproject: Tables, pins: list[Requirement]) -> None:
    for python in ("3.10", "3.11", "3.14"):
        on_this_python = {"python_version": python, "python_full_version": f"{python}.0"}
        for requirement in requirements(pyproject):
            if requirement.marker and not requirement.marker.evaluate(on_this_python):
                continue
            fitting = [
                pin
                for pin in pins
                if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
                and (pin.marker is None or pin.marker.evaluate(on_this_python))
            ]
            assert len(fitting) == 1, f"{requirement} has {len(fitting)} pins on Python {python}"
            (specifier,) = fitting[0].specifier
            assert requirement.specifier.contains(specifier.version), f"{requirement} does not admit {fitting[0]}"


def test_constraints_are_exact_and_contain_no_build_tag_and_no_address(pins: list[Requirement]) -> None:
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert not re.search(r"[+*]", specifier.version), pin
        assert pin.url is None, pin
    assert [str(pin) for pin in pins if pin.name == "torch"] == ["torch==2.13.0"]


def installed_closure(roots: list[Requirement]) -> Iterator[str]:
    """Names of all installed packages that ``roots`` need, with those of their dependencies, as on Linux."""
    linux = {**default_environment(), "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    seen: set[tuple[str, str]] = set()
    todo = [(r, extra) for r in roots for extra in ("", *r.extras)]
    while todo:
        requirement, extra = todo.pop()
        key = (canonicalize_name(requirement.name), extra)
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        yield key[0]
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({**linux, "extra": extra}):
                todo += [(need, inner) for inner in ("", *need.extras)]


def installed_as_pinned(pin: Requirement) -> bool:
    try:
        return pin.specifier.contains(Version(importlib.metadata.version(pin.name)).public, prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return True


def test_constraints_pin_the_dependencies_of_dependencies(pyproject: Tables, pins: list[Requirement]) -> None:
    direct = {canonicalize_name(r.name) for r in requirements(pyproject)}
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    if not all(installed_as_pinned(pin) for pin in here if canonicalize_name(pin.name) in direct):
        pytest.skip("other releases than those of constraints.txt are installed, which may need other packages")
    pinned = {canonicalize_name(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate()}
    needed = set(installed_closure(requirements(pyproject)))
    assert len(needed) > 100, "no dependencies were found"
    assert {name for name in needed - pinned if not CUDA.match(name)} == set()


def imported_packages(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level names of the foreign packages that a module imports, and whether importing the module needs them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"renyi_lab"}:
            yield name, node in tree.body


def test_what_the_package_imports_is_declared(pyproject: Tables) -> None:
    core = {canonicalize_name(Requirement(text).name) for text in pyproject["project"]["dependencies"]}
    declared = {canonicalize_name(r.name) for r in requirements(pyproject)} | OPTIONAL
    commands = {canonicalize_name(r.name) for r in requirements(pyproject, ("cli",))}  # guarded in cli/__init__.py
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in (ROOT / "renyi_lab").rglob("*.py"):
        for name, at_once in imported_packages(path):
            providers = {canonicalize_name(provider) for provider in distributions.get(name, [name])}
            if not providers & (declared if not at_once else commands if path.parent.name == "cli" else core):
                undeclared.add(f"{path.name} imports {name}")
    assert undeclared == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built from a copy of the project whose course has a solution and an editor's checkpoint."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "renyi_lab", source / "renyi_lab")
    for relative in ("00_first.ipynb", "solutions/00_first.ipynb", ".ipynb_checkpoints/00_first-checkpoint.ipynb"):
        (source / "notebooks" / relative).parent.mkdir(parents=True, exist_ok=True)
        (source / "notebooks" / relative).write_text("{}", encoding="utf-8")
    (source / "notebooks" / "results").mkdir()
    for name in COURSE_FILES:
        (source / "notebooks" / name).write_text("1", encoding="utf-8")
    for name in DATA:
        (source / "renyi_lab" / "study" / name).write_text("1", encoding="utf-8")
    (path,) = WheelBuilder(str(source)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_contains_the_course_without_checkpoints(wheel: zipfile.ZipFile) -> None:
    course = {name for name in wheel.namelist() if name.endswith(".ipynb")}
    assert course == {"renyi_lab/notebooks/00_first.ipynb", "renyi_lab/notebooks/solutions/00_first.ipynb"}
    assert {f"renyi_lab/notebooks/{name}" for name in COURSE_FILES} <= set(wheel.namelist())


def test_the_wheel_contains_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    sources = [path for path in (ROOT / "renyi_lab").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= names
    assert {f"renyi_lab/study/{name}" for name in DATA} <= names
    assert "renyi_lab/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]
    assert {name.split("/")[0] for name in names} == {"renyi_lab", f"renyi_lab-{renyi_lab.__version__}.dist-info"}


def test_the_console_script_points_at_a_function(pyproject: Tables) -> None:
    module, _, function = pyproject["project"]["scripts"]["renyi-lab"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_a_checkout_uses_its_own_notebooks() -> None:
    assert _course_files.course_directory() == ROOT / "notebooks"


def test_an_installed_package_uses_the_course_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "renyi_lab"
    (package / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(_course_files, "_PACKAGE", package)
    assert _course_files.course_directory() == package / "notebooks"


def test_another_package_s_notebooks_folder_is_not_taken_for_the_course(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(_course_files, "_PACKAGE", tmp_path / "renyi_lab")
    with pytest.raises(FileNotFoundError, match="Install the package again"):
        _course_files.course_directory()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_are_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert clean_notebooks.clean(notebook) == notebook, "run `make notebooks`"


FILES = [".pre-commit-config.yaml", "CITATION.cff", *(path.relative_to(ROOT) for path in ROOT.glob(".github/**/*.yml"))]


@pytest.mark.parametrize("name", FILES, ids=str)
def test_configuration_files_parse(name: str | Path) -> None:
    assert isinstance(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), dict)


def test_the_workflow_calls_only_targets_of_the_makefile() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert steps
    for step in steps:
        command, target, *_ = step.split()
        assert command == "make"
        assert target in targets


def test_the_citation_and_the_changelog_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == renyi_lab.__version__
    assert f"## [{renyi_lab.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
