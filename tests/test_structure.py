"""The layout of the package: stages import downward only, and nobody reaches into another package's private parts."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
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
    "plots",
    "posterior",
    "perturbation",
    "sharpness",
    "bounds",
    "study",
    "exercises",
    "widgets",
    "cli",
    "__main__",
)
MODULES = {
    ".".join(("renyi_lab", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def stage_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every import of the package in a file, wherever it stands: module and imported names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "renyi_lab":
                yield from ((f"renyi_lab.{alias.name}", []) for alias in node.names)
            elif node.module and node.module.startswith("renyi_lab."):
                yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.startswith("renyi_lab."))


def targets(module: str) -> Iterator[str]:
    """The modules of the package that ``module`` imports."""
    for imported, names in imports(MODULES[module]):
        submodules = [f"{imported}.{name}" for name in names if f"{imported}.{name}" in MODULES]
        yield from submodules or [imported]


def test_every_stage_has_its_place() -> None:
    found = {stage_of(module) for module in MODULES} - {""}
    assert found == set(STAGES)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "renyi_lab"])
def test_imports_point_downward(module: str) -> None:
    own = STAGES.index(stage_of(module))
    upward = [
        other
        for other in targets(module)
        if stage_of(other) != stage_of(module) and (not stage_of(other) or STAGES.index(stage_of(other)) >= own)
    ]
    assert not upward, f"{module} imports {upward}, which lie above it"


@pytest.mark.parametrize("module", MODULES)
def test_only_a_package_s_face_is_imported_from_outside(module: str) -> None:
    """``_utils`` belongs to all; its modules are its faces."""
    for imported, names in imports(MODULES[module]):
        if stage_of(imported) in (stage_of(module), "_utils", "_version"):
            continue
        private = [part for part in (*imported.split(".")[2:], *names) if part.startswith("_")]
        assert not private, f"{module} imports {private} of {imported}"


def test_no_import_cycles() -> None:
    graph = {module: {other for other in targets(module) if other != module} for module in MODULES}
    # A package's face imports its modules; an import of a module runs the face first, which is not a cycle.
    graph = {module: {o for o in others if not module.startswith(f"{o}.")} for module, others in graph.items()}
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, f"import cycle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module in state:
            return
        state[module] = 1
        for other in sorted(graph.get(module, ())):
            visit(other, (*trail, module))
        state[module] = 2

    for module in graph:
        visit(module, ())


def private_attributes(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node.lineno, node.attr


def definitions(stage: str) -> set[str]:
    """Underscore names that a stage's code defines: functions, methods, classes, attributes and variables."""
    found: set[str] = set()
    for module, path in MODULES.items():
        if stage_of(module) != stage:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "_version"])
def test_nobody_touches_another_stage_s_private_attributes(stage: str) -> None:
    own = definitions(stage)
    foreign = {name for other in STAGES if other != stage for name in definitions(other)} - own
    foreign = {name for name in foreign if not (hasattr(Tensor, name) or hasattr(nn.Module(), name))}
    touched = [
        f"{module}:{line} {name}"
        for module, path in MODULES.items()
        if stage_of(module) == stage
        for line, name in private_attributes(path)
        if name in foreign
    ]
    assert not touched, touched


def test_modules_of_packages_are_private() -> None:
    """``_utils`` is private as a whole; the recipes of ``optim`` are documentation that is read by its name."""
    public = {
        module
        for module in MODULES
        if module.count(".") > 1 and stage_of(module) != "_utils" and not module.rpartition(".")[2].startswith("_")
    }
    assert public == {"renyi_lab.optim.recipes"}


def test_no_public_name_is_both_a_function_and_a_module() -> None:
    for module in pkgutil.walk_packages(renyi_lab.__path__, "renyi_lab."):
        parent, _, name = module.name.rpartition(".")
        face = __import__(parent, fromlist=["__all__"])
        value = getattr(face, name, None) if name in getattr(face, "__all__", ()) else None
        assert value is None or getattr(value, "__name__", "") == module.name, f"{module.name} is shadowed"
