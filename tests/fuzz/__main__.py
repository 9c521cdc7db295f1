"""Run many cases: `python -m fuzz 10000 --seed 0`, or one again: `python -m fuzz --seed 0 --index 17`."""

from __future__ import annotations

import argparse
import collections
import sys
import time

from fuzz.cases import MODES, case_at, run
from fuzz.minimise import minimised

Counts = collections.Counter[tuple[str, ...]]


def main() -> int:
    """Run the cases, print failures as they come and a table at the end; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=500, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, default=0, help="index of the first case")
    parser.add_argument("--only", default="", help="only targets whose name contains this")
    parser.add_argument("--times", action="store_true", help="print the targets that took longest")
    options = parser.parse_args()
    outcomes: Counts = collections.Counter()
    failures: Counts = collections.Counter()
    seconds: collections.Counter[str] = collections.Counter()
    names: set[str] = set()
    for index in range(options.index, options.index + options.number):
        case = case_at(options.seed, index)
        if options.only not in case.target.name:
            continue
        start = time.process_time()
        failure, outcome = run(case)
        seconds[case.target.name] += time.process_time() - start
        names.add(case.target.name)
        outcomes[case.mode, "failed" if failure else "returned" if outcome == "returned" else "refused"] += 1
        if failure is None:
            continue
        key = failure.kind, failure.place, case.target.name
        failures[key] += 1
        if failures[key] == 1:
            small = minimised(case, failure)
            print(f"\n# case {index} of seed {options.seed}, {case.target.name}: {failure.kind}\n# {failure.message}")
            print(small.reproduction, flush=True)
    _table(outcomes, failures, len(names))
    for name, spent in seconds.most_common(25 if options.times else 0):
        print(f"{spent:8.2f} s  {name}")
    return 1 if failures else 0


def _table(outcomes: Counts, failures: Counts, num_names: int) -> None:
    columns = ("returned", "refused", "failed")
    print(f"\n{'arguments':<14}" + "".join(f"{column:>10}" for column in columns))
    for mode in MODES:
        print(f"{mode:<14}" + "".join(f"{outcomes[mode, column]:>10}" for column in columns))
    print(f"{'all':<14}" + "".join(f"{sum(outcomes[mode, c] for mode in MODES):>10}" for c in columns))
    print(f"{sum(outcomes.values())} cases of {num_names} public names\n")
    kinds: collections.Counter[str] = collections.Counter()
    for (kind, _, _), count in failures.items():
        kinds[kind] += count
    for kind, count in kinds.most_common():
        print(f"{count:>6}  {kind}")


if __name__ == "__main__":
    sys.exit(main())
