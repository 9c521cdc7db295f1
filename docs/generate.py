"""Render what comes from files: pages of results, tables of the course in the README and in the notes for teachers.

    python docs/generate.py

Every template of `docs/templates` becomes a page of the same name in `docs`. In a template the variable ``hvp`` is the
content of `tests/benchmarks/results/hvp.json`, or ``None`` where that file does not exist; the same for each benchmark.
Numbers are never typed into a template.
"""

from __future__ import annotations

import inspect
import json
import math
import operator
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cost_page
import jinja2
from scipy.stats import t

from renyi_lab import exercises

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RESULTS = ROOT / "tests" / "benchmarks" / "results"
TEMPLATES = DOCS / "templates"
BENCHMARKS = (
    "hvp",
    "gpu",
    "language_model",
    "entropy_error",
    "coverage",
    "data_error",
    "lanczos_vectors",
    "study_tables",
    "study_coverage",
    "random_labels",
    "bound_alpha",
    "optim_accuracy",
    "optim_step",
    "rsam_sharpness",
    "intervention",
    "intervention_walk",
    "base_optimizers",
    "domain_generalization",
    "counterexamples",
    "explorers",
    "busy",
)
NOTICE = "<!-- Rendered by docs/generate.py from docs/templates. Edit the template, not this page. -->\n\n"
NO_BREAK = "\u00a0"
COURSE = re.compile(r"(?<=<!-- course:begin -->\n).*?(?=<!-- course:end -->)", re.DOTALL)
EXERCISES = re.compile(r"(?<=<!-- exercises:begin -->\n).*?(?=<!-- exercises:end -->)", re.DOTALL)
CHECKER = re.compile(r"exercises\.(check_\w+)\(")


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with a typographic minus; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def short(value: float | None) -> str:
    """A number with as many digits as it needs."""
    return "–" if value is None else f"{value:g}"


def significant(value: float | None, digits: int = 2) -> str:
    """A number with so many significant digits."""
    return "–" if value is None else f"{value:.{digits}g}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.0f} %"


def plus_minus(value: dict[str, float] | None, digits: int = 4) -> str:
    """Mean ± standard error."""
    return (
        "–" if value is None else f"{fixed(value['mean'], digits)} ± {value['error']:.{digits}f}".replace(" ", NO_BREAK)
    )


def span(values: Iterable[float], digits: int = 2) -> str:
    """The range of some numbers, as "a to b"."""
    low, high = (fixed(f(values), digits) for f in (min, max))
    return low if low == high else f"{low} to {high}"


def tau(row: dict[str, float | None]) -> str:
    """Kendall's τ with its interval, if it has one."""
    if row["low"] is None:
        return signed(row["tau"])
    return f"{signed(row['tau'])} [{signed(row['low'])}, {signed(row['high'])}]".replace(" ", NO_BREAK)


def mean_interval(value: dict[str, float] | None, digits: int = 2) -> str:
    """A mean difference with its interval, in bold where the interval leaves out zero."""
    if value is None:
        return "–"
    text = f"{signed(value['mean'], digits)} [{signed(value['low'], digits)}, {signed(value['high'], digits)}]"
    return (f"**{text}**" if resolved(value) else text).replace(" ", NO_BREAK)


def resolved(value: dict[str, float] | None) -> bool:
    """Whether the interval leaves out zero."""
    return value is not None and not value["low"] <= 0 <= value["high"]


def widened(value: dict[str, float], comparisons: int, samples: int) -> dict[str, float]:
    """A Student interval of 95 % widened so that ``comparisons`` of them hold together with 95 % (Bonferroni)."""
    factor = t.ppf(1 - 0.025 / comparisons, samples - 1) / t.ppf(0.975, samples - 1)
    return {
        "mean": value["mean"],
        **{key: value["mean"] + factor * (value[key] - value["mean"]) for key in ("low", "high")},
    }


def times(value: dict[str, float] | None, factor: float) -> dict[str, float] | None:
    """The mean and its interval in another unit."""
    return value and {name: factor * number for name, number in value.items()}


def distinct(records: Sequence[dict[str, Any]], *keys: str) -> list[Any]:
    """The values of a key, or of several as tuples, in the order of their first appearance."""
    return list(dict.fromkeys(operator.itemgetter(*keys)(record) for record in records))


def circumstances(data: dict[str, Any]) -> str:
    """When, where and with what a result was measured, in one line."""
    known = data["circumstances"]
    if "source" in known:
        return f"*{known['source'][0].upper()}{known['source'][1:]}.*"
    versions = ", ".join(f"{name} {known[name]}" for name in ("torch", "numpy", "scipy", "renyi_lab"))
    return (
        f"*Measured on {known['date']}: {known['processor']}, {known['cores']} cores, {known['threads']} threads; "
        f"load {known['load_at_start']:.1f} at the start, {known['load_at_end']:.1f} at the end; "
        f"{known['machine']}, Python {known['python']}, {versions}.*"
    )


def missing(name: str) -> str:
    """What stands in place of a result that is not there."""
    return f"*Not measured on this checkout: run `python tests/benchmarks/{name}.py`, then `python docs/generate.py`.*"


def notebooks() -> list[dict[str, str]]:
    """Name, title, one-sentence promise and time of each notebook of the course, from its first two cells."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"][:3]  # with the line of navigation
        text = "\n".join("".join(cell["source"]) for cell in cells)
        matches = [
            re.search(pattern, text, re.DOTALL | re.MULTILINE)
            for pattern in (r"^# (.+?)$", r"^\*([^*].+?)\*$", r"\*\*Time:\*\* (.+?)\.")
        ]
        if None in matches:
            raise ValueError(f"{path.name}: the first cells must hold a title, a promise in italics and **Time:**.")
        title, promise, time = (" ".join(match[1].split()) for match in matches)
        found.append({"name": path.stem, "title": title, "promise": promise, "time": time})
    return found


def course_table(prefix: str) -> str:
    """The course as a table; ``prefix`` leads from the page to the folder of notebooks."""
    lines = ["| notebook | about | time on two cores |", "|---|---|---|"]
    lines += [
        f"| [{n['name']}]({prefix}{n['name']}.ipynb) | {n['title']} | {n['time'].replace(' on two cores', '')} |"
        for n in notebooks()
    ]
    return "\n".join(lines) + "\n"


def exercise_table() -> str:
    """Every checker that a notebook calls, in the order of the text, with what it asks for."""
    lines = ["| notebook | exercise | kind | what it asks for |", "|---|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        found: dict[str, str] = {}
        for cell in code:
            kind = "core" if "stub" in cell["metadata"].get("tags", ()) else "exercise"
            for name in CHECKER.findall("".join(cell["source"])):
                found.setdefault(name, kind)
        lines += [f"| [{path.stem}]({path.name}) | `{name}` | {kind} | {_asks(name)} |" for name, kind in found.items()]
    return "\n".join(lines) + "\n"


def _asks(name: str) -> str:
    """The first paragraph of a checker's docstring, as Markdown in one line."""
    text = " ".join((inspect.getdoc(getattr(exercises, name)) or "").split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|")


def beats_sam(record: dict[str, Any]) -> bool:
    """Whether a method is better than SAM by more than two standard errors."""
    difference = record["less_sam"]
    return bool(difference["mean"] > 2 * difference["error"])


def environment() -> jinja2.Environment:
    """The filters above, and the results."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the output is Markdown
    )
    filters = (fixed, signed, short, significant, percent, plus_minus, span, tau, distinct, circumstances, beats_sam)
    filters += (mean_interval, times, widened)
    made.filters["exp"] = math.exp
    made.filters.update({function.__name__: function for function in filters})
    made.tests["resolved"] = resolved
    made.tests["rsam"] = lambda method: "RSAM" in method or "exact" in method
    for name in BENCHMARKS:
        path = RESULTS / f"{name}.json"
        made.globals[name] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    made.globals["cost_model"] = cost_page.page(made.globals["gpu"], made.globals["language_model"])
    made.globals.update(missing=missing, course_table=course_table, notebooks=notebooks())
    return made


def rendered() -> dict[Path, str]:
    """Path → text of every file that this script writes."""
    made = environment()
    pages = {
        DOCS / name: NOTICE + made.get_template(name).render()
        for name in made.list_templates(extensions=["md"])
        if not Path(name).name.startswith("_")
    }
    readme, teachers = ROOT / "README.md", ROOT / "notebooks" / "README.md"
    pages[readme] = COURSE.sub(lambda _: course_table("notebooks/"), readme.read_text(encoding="utf-8"))
    notes = COURSE.sub(lambda _: course_table(""), teachers.read_text(encoding="utf-8"))
    return {**pages, teachers: EXERCISES.sub(lambda _: exercise_table(), notes)}


def main() -> None:
    """Write what has changed."""
    for path, text in rendered().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
