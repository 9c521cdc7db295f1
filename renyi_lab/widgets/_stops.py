"""The values of a control one by one, set without telling its observers or the browser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets

from renyi_lab._utils.interrupts import restoring

_VALUE_TRAITS = ("index", "label", "value")  # a selection has all three, which its own observers keep consistent


@dataclass(frozen=True)
class Stop:
    """One value of a control: the text that a reader sees, and the control's traits."""

    text: str
    traits: dict[str, Any]

    def apply(self, control: ipywidgets.ValueWidget) -> None:
        """Give the control this value."""
        for name, value in self.traits.items():
            setattr(control, name, value)


def current_stop(control: ipywidgets.ValueWidget) -> Stop:
    """The present value of a control."""
    traits = {name: getattr(control, name) for name in _VALUE_TRAITS if control.has_trait(name)}
    if "label" in traits and isinstance(traits["index"], int):  # a new control has no label yet
        traits["label"] = control._options_labels[traits["index"]]
    return Stop(_text(control, traits), traits)


def stops(control: ipywidgets.ValueWidget, limit: int) -> tuple[list[Stop], int]:
    """At most about ``limit`` evenly spaced values, with both ends and the present one, and the index of the latter.

    Raises:
        TypeError: The control is neither a slider nor a selection of one value.
        ValueError: Nothing is selected, or the slider's range is not finite.
    """
    count, here, traits_at = _grid(control)
    stride = max(math.ceil((count - 1) / (limit - 1)), 1)
    chosen = sorted({0, count - 1, *range(here % stride, count, stride)})
    found = []
    for index in chosen:
        traits = traits_at(index)
        # The present value may lie between two steps of the slider.
        found.append(current_stop(control) if index == here else Stop(_text(control, traits), traits))
    return found, chosen.index(here)


def thinned(count: int, here: int) -> list[int]:
    """Every second of ``count`` indices, with both ends and ``here``."""
    return sorted({0, count - 1, *range(here % 2, count, 2)})


@restoring
def silent(controls: Sequence[ipywidgets.ValueWidget]) -> Iterator[None]:
    """Changes of the controls are told to nobody, and undone at the end."""
    before = [current_stop(control) for control in controls]
    for control in controls:
        control.notify_change = _ignore
    try:
        yield
    finally:
        for control, stop in zip(controls, before, strict=True):
            stop.apply(control)
            del control.notify_change


def _ignore(change: Any) -> None:
    pass


def _grid(control: ipywidgets.ValueWidget) -> tuple[int, int, Any]:
    """Number of values, index of the present one or of the nearest, and the traits at an index."""
    if control.has_trait("options") and isinstance(getattr(control, "index", ()), int | None):
        if control.index is None:
            raise ValueError("to_html starts at the selected value of the first control, but none is selected.")
        names, values = control._options_labels, control._options_values
        return len(names), control.index, lambda i: {"index": i, "label": names[i], "value": values[i]}
    bounded = all(control.has_trait(name) for name in ("min", "max", "step"))
    if not (bounded and isinstance(control.value, (int, float))):
        raise TypeError(
            f"to_html varies the first control, which must be a slider or a selection of one value, "
            f"got {type(control).__name__}."
        )
    low, high, base = control.min, control.max, getattr(control, "base", None)
    step = control.step or (high - low) / 100 or 1
    if not (math.isfinite((high - low) / step) and math.isfinite(control.value)):
        raise ValueError(f"to_html needs a finite value and range of the slider, got {control.value}, {low} to {high}.")
    present = control.value if base is None else math.log(control.value, base)
    count = math.floor((high - low) / step + 1e-6) + 1
    here = min(max(round((present - low) / step), 0), count - 1)
    return count, here, lambda i: {"value": low + i * step if base is None else base ** (low + i * step)}


def _text(control: ipywidgets.ValueWidget, traits: dict[str, Any]) -> str:
    if "label" in traits:
        return str(traits["label"])
    value, pattern = traits["value"], getattr(control, "readout_format", "")
    try:
        return format(value, pattern)
    except (TypeError, ValueError):  # formats of JavaScript that Python does not know
        return f"{value:g}" if isinstance(value, float) else str(value)
