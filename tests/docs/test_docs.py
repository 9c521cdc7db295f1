"""The documentation: rendered pages are up to date, links resolve, snippets run, constants are those of the code."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
import yaml
from language_model import CausalLM
from language_model import loader as language_model_loader
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl

ROOT = Path(__file__).resolve().parents[2]
DOCS, BENCHMARKS = ROOT / "docs", ROOT / "tests" / "benchmarks"
TEMPLATES = sorted((DOCS / "templates").rglob("*.md"))
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path not in TEMPLATES]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# Decimals that templates may contain: settings of the experiments, a paper's claim, numbers on arXiv, and a version.
SETTINGS = {"0.05", "0.1", "0.5", "1.5", "0.6", "0.9", "4.1", "2307.11007", "2510.07758"}


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_rendered_pages_are_those_of_the_templates_and_results() -> None:
    outdated = [
        name(path)
        for path, text in module(DOCS / "generate.py").rendered().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not outdated, "run `python docs/generate.py`"


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_templates_contain_no_measured_number(path: Path) -> None:
    prose = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", prose)) <= SETTINGS


def test_intervals_are_widened_as_bonferroni_says() -> None:
    widened = module(DOCS / "generate.py").widened
    value = {"mean": 1.0, "low": 1.0 - 2.262, "high": 1.0 + 2.262}  # 2.262: 97.5 % quantile of Student's t, 9 degrees
    assert widened(value, 1, 10) == pytest.approx(value)
    assert widened(value, 5, 10) == pytest.approx({"mean": 1.0, "low": 1.0 - 3.250, "high": 1.0 + 3.250}, abs=1e-3)


def test_the_only_table_of_the_readme_is_the_course() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rest = re.sub(r"<!-- course:begin -->.*<!-- course:end -->", "", readme, flags=re.DOTALL)
    assert not re.search(r"^\|", rest, re.MULTILINE)


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=name)
def test_results_tell_where_they_come_from(path: Path) -> None:
    circumstances = json.loads(path.read_text(encoding="utf-8"))["circumstances"]
    measured = {"date", "processor", "cores", "threads", "python", "torch", "numpy", "scipy", "renyi_lab"}
    assert "source" in circumstances or measured <= circumstances.keys()
    assert not circumstances.get("quick")


@pytest.mark.slow
def test_the_study_s_tables_are_those_of_the_shipped_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = module(BENCHMARKS / "study_tables.py")
    computed = script.study_tables(script.standard_studies())
    committed = numbers(json.loads((BENCHMARKS / "results" / "study_tables.json").read_text(encoding="utf-8")))
    for key, value in numbers(computed).items():
        # These come from NumPy's random numbers, whose stream another version may change.
        random = ("low", "high", "null_median", "null_95", "p_value", "chosen", "held_out")
        counts = ("/positive", "/negative")  # of intervals, of which one may end at 0
        tolerance = 0.05 if key.endswith(random) else 1 if key.endswith(counts) else 1e-5
        assert committed[key] == pytest.approx(value, abs=tolerance), key


def numbers(value: Any, key: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, by their path."""
    if not isinstance(value, dict):
        return {key: value}
    return {path: leaf for name, part in value.items() for path, leaf in numbers(part, f"{key}/{name}").items()}


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give to headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        parts = urlsplit(target)
        if parts.scheme:
            continue
        file = path.parent / unquote(parts.path) if parts.path else path
        if not file.exists() or (parts.fragment and parts.fragment not in anchors(file)):
            yield target


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_within_the_repository_resolve(path: Path) -> None:
    assert list(broken_links(path)) == []


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_images_are_small_and_have_alternative_texts(path: Path) -> None:
    for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", prose(path)):
        assert len(text) > 30
        assert (path.parent / target).stat().st_size < 150_000


def test_every_public_module_has_a_page_and_every_page_is_in_the_navigation() -> None:
    public = {path.stem for path in Path(rl.__file__).parent.iterdir() if re.match(r"[a-z]\w+(\.py)?$", path.name)}
    assert {path.stem for path in (DOCS / "api").glob("*.md")} == public - {"cli", "notebooks"} | {"index"}
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES}
    assert leaves(configuration["nav"]) == pages | notebooks | {"contributing.md", "changelog.md"}


def leaves(navigation: Any) -> set[str]:
    if isinstance(navigation, str):
        return {navigation}
    parts = navigation.values() if isinstance(navigation, dict) else navigation
    return set().union(*map(leaves, parts))


def test_heuristics_have_the_values_of_the_code() -> None:
    table = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", (DOCS / "estimates.md").read_text(encoding="utf-8"), re.M)
    constants = {}
    for package in ("krylov", "spectrum"):
        for path in (ROOT / "renyi_lab" / package).glob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign):
                    constants.update(assigned(node))
    assert len(table) > 10
    for constant, value in table:
        assert constants[constant] == float(value), constant


def assigned(node: ast.Assign) -> dict[str, Any]:
    """Names and values of an assignment of numbers, ``A, B = 1, 2`` included."""
    pairs = [(node.targets[0], node.value)]
    if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
    return {
        target.id: eval(ast.unparse(value))  # an arithmetic expression such as 1 / 2
        for target, value in pairs
        if isinstance(target, ast.Name) and re.fullmatch(r"[\d./*e -]+", ast.unparse(value))
    }


def snippets(path: Path) -> str:
    return "\n".join(re.findall(r"^```python[^\n]*\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.M))


# What makes the ten lines of the README fast enough for a test.
SMALL = {
    "mnist1d()": "mnist1d(num_samples=250)",
    "mlp(40, 100, 100, 10, seed=0)": "mlp(40, 8, 10, seed=0)",
    "epochs=60": "epochs=2",
    "num_matvecs=200": "num_matvecs=100",
}


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "index.md"], ids=name)
def test_the_ten_lines_run(path: Path) -> None:
    code = snippets(path)
    for full, small in SMALL.items():
        assert full in code
        code = code.replace(full, small)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["spectrum"].dim == names["H"].dim == 8 * 41 + 10 * 9


def test_our_side_of_the_porting_guide_runs_and_changes_the_weights_only_by_steps() -> None:
    model = rl.models.mlp(5, 12, 3, seed=0)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 3
    before = [p.detach().clone() for p in model.parameters()]
    names: dict[str, Any] = {
        "rl": rl,
        "torch": torch,
        "model": model,
        "loss_fn": torch.nn.functional.cross_entropy,
        "x": x,
        "y": y,
        "loader": DataLoader(TensorDataset(x, y), batch_size=8),
        "language_model": CausalLM(),
        "token_loader": language_model_loader(),
    }
    spectra, _, optimizers = snippets(DOCS / "porting.md").partition("optimizer = ")
    exec(spectra, names)
    assert all(map(torch.equal, before, model.parameters()))
    dense = torch.linalg.eigvalsh(rl.HessianOperator(model, names["loss_fn"], (x, y)).to_dense().double())
    assert names["values"] == pytest.approx(dense[-3:].numpy(), rel=1e-3)
    assert names["top_values"] == pytest.approx(dense[-2:].numpy(), rel=1e-3)
    assert float(names["trace"]) == pytest.approx(float(dense.sum()), abs=4 * names["trace"].standard_error)
    assert names["biases"].dim == 15
    assert list(names["layers"]) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    assert list(names["parts"]) == ["attention", "embedding"]
    exec(f"optimizer = {optimizers}", names)
    assert not any(map(torch.equal, before, model.parameters()))


def test_every_benchmark_is_on_a_results_page() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("[!_]*.py")}
    assert set(module(DOCS / "generate.py").BENCHMARKS) >= scripts
