"""The layout of the package: imports point downward only, and no stage uses another stage's private names."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from torch import Tensor, nn

import renyi_lab

ROOT = Path(renyi_lab.__file__).parent
# From the bottom up. A stage may import those before it, whether at run time, inside a function or for annotations.
STAGES = (
    "_version",
    "_utils",
    "operators",
    "krylov",
    "spectrum",
    "optim",
    "training",
    "datasets",
    "models",
    "counterexamples",
    "plots",
    "diagrams",
    "posterior",
    "perturbation",
    "sharpness",
    "checks",
    "bounds",
    "study",
    "distributed",
    "course",
    "exercises",
    "widgets",
    "cli",
    "__main__",
)
MODULES = {
    ".".join(("renyi_lab", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
        path.read_text(encoding="utf-8")
    )
    for path in sorted(ROOT.rglob("*.py"))
}


def stage_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Every import from the package at any depth of a module: the imported module, and the name taken from it."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found = [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found = [(str(getattr(node.args[0], "value", "")), "")]
        else:
            continue
        yield from ((other, name) for other, name in found if other.split(".")[0] == "renyi_lab")


def targets(module: str) -> set[str]:
    """The modules of the package that ``module`` imports."""
    pairs = [(other, f"{other}.{name}") for other, name in imports(module)]
    return {submodule if submodule in MODULES else other for other, submodule in pairs}


def test_every_stage_has_its_place() -> None:
    assert {stage_of(module) for module in MODULES} - {""} == set(STAGES)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "renyi_lab"])
def test_imports_point_downward(module: str) -> None:
    allowed = STAGES[: STAGES.index(stage_of(module)) + 1]
    upward = [other for other in targets(module) if stage_of(other) not in allowed]
    assert not upward, f"{module} imports {upward}, which are above it"


@pytest.mark.parametrize("module", MODULES)
def test_only_public_names_are_imported_from_other_stages(module: str) -> None:
    """``_utils`` is shared by all stages."""
    for other, name in imports(module):
        path = [*other.split(".")[1:], name]
        private = [part for part in path if is_private(part) and part not in ("_utils", "_version")]
        assert not private or stage_of(other) == stage_of(module), f"{module} imports {'.'.join(path)}"


def test_no_import_cycles() -> None:
    """Neither at run time nor through annotations; a package's modules do not import from its own ``__init__``."""
    TopologicalSorter({module: targets(module) for module in MODULES}).prepare()  # its error names the cycle


def private_uses(module: str) -> Iterator[tuple[int, str]]:
    """Private names in ``x._name`` and ``getattr(x, "_name")``, with their lines."""
    for node in ast.walk(MODULES[module]):
        name: object = None
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            name = getattr(node.args[1], "value", None)
        if isinstance(name, str) and is_private(name):
            yield node.lineno, name


@cache
def private_names(stage: str) -> tuple[set[str], set[str]]:
    """Private names that a stage defines anywhere, and those among them that are members of its classes."""
    modules = [module for module in MODULES if stage_of(module) == stage]
    names, members = {module.rpartition(".")[2] for module in modules}, set()
    for node in (node for module in modules for node in ast.walk(MODULES[module])):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            members.add(node.attr)
        for item in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(item, ast.FunctionDef):
                members.add(item.name)
            elif isinstance(item, (ast.Assign, ast.AnnAssign)):
                members |= {n.id for n in ast.walk(item) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {name for name in names | members if is_private(name)}, members


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_uses_private_attributes_of_another(stage: str) -> None:
    foreign = {name for other in STAGES if other != stage for name in private_names(other)[0]}
    foreign -= private_names(stage)[1]
    foreign = {name for name in foreign if not (hasattr(Tensor, name) or hasattr(nn.Module(), name))}
    modules = [module for module in MODULES if stage_of(module) == stage]
    used = [f"{module}:{line} {name}" for module in modules for line, name in private_uses(module) if name in foreign]
    assert not used, used


def test_modules_of_packages_are_private() -> None:
    """``_utils`` is private as a package; the recipes of ``optim`` are documentation with a name of its own."""
    names = {module: module.rpartition(".")[2] for module in MODULES if module.count(".") > 1}
    public = {module for module, name in names.items() if stage_of(module) != "_utils" and not name.startswith("_")}
    assert public == {"renyi_lab.optim.recipes"}


def test_no_public_name_is_both_a_function_and_a_module() -> None:
    for module in pkgutil.walk_packages(renyi_lab.__path__, "renyi_lab."):
        parent, _, name = module.name.rpartition(".")
        face = __import__(parent, fromlist=["__all__"])
        value = getattr(face, name, None) if name in getattr(face, "__all__", ()) else None
        assert value is None or getattr(value, "__name__", "") == module.name, f"{module.name} is shadowed"


def test_importing_the_package_loads_neither_slow_dependencies_nor_higher_stages() -> None:
    code = "import sys, torch; before = set(sys.modules); import renyi_lab; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    slow = {"IPython", "ipywidgets", "joblib", "matplotlib", "mnist1d", "pandas", "rich", "scipy", "sklearn", "typer"}
    assert not slow & {module.split(".")[0] for module in loaded}
    stages = {stage_of(module) for module in loaded if module.split(".")[0] == "renyi_lab"}
    assert stages == {"", "_utils", "_version", "operators", "krylov", "spectrum", "optim"}
