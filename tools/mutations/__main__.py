"""The command line: `python -m tools.mutations map` and `python -m tools.mutations run`."""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tools.mutations import __doc__ as description
from tools.mutations import reach, sites, trial
from tools.mutations.checkout import ROOT, Copy
from tools.mutations.trial import EQUIVALENT, NOTICED, Trial

FOLDERS = (
    "",
    *(path.name for path in sorted((ROOT / "sequencer2d").iterdir()) if (path / "__init__.py").exists()),
)
EQUIVALENTS = Path(__file__).with_name("equivalent.json")

Drawn = tuple[str, str, sites.Site]
"""A folder of the package, the path of a file in it, and a change of it."""


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.command == "map":
        reach.measure(arguments.paths)
        return 0
    if missing := reach.unmeasured(reach.load()):
        print(f"mutations: not in the map, measure them first: map {' '.join(missing)}", file=sys.stderr)
    drawn = draw(arguments.folder or FOLDERS, arguments.count, arguments.seed, arguments.match)
    known = {tuple(entry[name] for name in ("file", "line", "change")) for entry in load_equivalents()}
    jobs = [drawn[start :: arguments.jobs] for start in range(arguments.jobs)]
    options = (known, arguments.budget, time.monotonic() + arguments.minutes * 60)
    if arguments.jobs == 1:
        results = try_all(drawn, *options)
    else:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            results = [
                result for part in pool.map(try_all, jobs, *([each] * len(jobs) for each in options)) for result in part
            ]
    print(summary(results))
    if arguments.output:
        record = {"seed": arguments.seed, "count": arguments.count, "rows": [row(*result) for result in results]}
        arguments.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutations", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    mapping = commands.add_parser("map", help="measure which test runs which line")
    mapping.add_argument("paths", nargs="*", help="files or folders of tests; by default all")
    run = commands.add_parser("run", help="draw changes and try them")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--count", type=int, default=10, help="changes per folder (default: 10)")
    run.add_argument(
        "--folder", action="append", choices=FOLDERS, help="of the package; by default every one; repeatable"
    )
    run.add_argument("--match", default="", help="only files whose path holds this text")
    run.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    run.add_argument("--budget", type=float, default=60, help="seconds of tests per change, at most (default: 60)")
    run.add_argument("--minutes", type=float, default=600, help="begin no further change after this time")
    run.add_argument("--output", type=Path, help="write every change and its outcome as JSON")
    return parser.parse_args(argv)


def draw(folders: Iterable[str], count: int, seed: int, match: str = "") -> list[Drawn]:
    """`count` changes of each folder, drawn by the seed; all there are where these are fewer.

    A line is drawn first and then one of its changes, so that a line with many numbers counts no more than another.
    """
    drawn = []
    for folder in folders:
        lines: dict[tuple[str, int], list[sites.Site]] = {}
        for path in sites.files(ROOT, folder):
            name = str(path.relative_to(ROOT))
            for site in sites.find_sites(path) if match in name else ():
                lines.setdefault((name, site.line), []).append(site)
        generator = random.Random(f"{seed}/{folder}")
        chosen = generator.sample(sorted(lines), min(count, len(lines)))
        drawn += [(folder, name, generator.choice(lines[name, line])) for name, line in chosen]
    return drawn


def load_equivalents() -> list[dict[str, str]]:
    """The listed changes that nothing can notice, each with its reason."""
    entries: list[dict[str, str]] = json.loads(EQUIVALENTS.read_text(encoding="utf-8"))
    return entries


def try_all(drawn: list[Drawn], known: set[tuple[str, ...]], budget: float, deadline: float) -> list[tuple[str, Trial]]:
    """Try changes one after the other in one copy of the checkout."""
    trial.load_libraries()
    measured, copy, results = reach.load(), Copy(), []
    try:
        trial.drop_missing(copy, measured)
        for folder, name, site in drawn:
            if time.monotonic() > deadline:
                print("mutations: out of time", file=sys.stderr)
                break
            if (name, site.text, site.change) in known:
                result = Trial(name, site, EQUIVALENT)
            else:
                result = trial.attempt(copy, name, site, measured, budget)
            results.append((folder, result))
            print(line_of(result), flush=True)
    finally:
        copy.remove()
    return results


def line_of(result: Trial) -> str:
    """A change as a line of output."""
    site = result.site
    place = f"{result.path.removeprefix('sequencer2d/')}:{site.line}"
    effort = f"{result.tests:4} tests {result.seconds:5.1f} s"
    return f"{result.outcome:10} {effort}  {place}  {site.kind}: {site.change}  | {site.text}"


def row(folder: str, result: Trial) -> dict[str, Any]:
    """A change as a row of the output file."""
    site = result.site
    return {
        "folder": folder, "file": result.path, "line": site.line, "text": site.text, "kind": site.kind,
        "change": site.change, "outcome": result.outcome, "tests": result.tests, "seconds": round(result.seconds, 1),
    }  # fmt: skip


def summary(results: list[tuple[str, Trial]]) -> str:
    """The share noticed, by folder and over all, of the changes that are not listed as equivalent."""
    lines = []
    folders = list(dict.fromkeys(folder for folder, _ in results))
    for title, names in (*((folder or "(top)", [folder]) for folder in folders), ("all", folders)):
        outcomes = [result.outcome for folder, result in results if folder in names and result.outcome != EQUIVALENT]
        noticed = outcomes.count(NOTICED)
        share = f"{100 * noticed / len(outcomes):.0f} %" if outcomes else "–"
        lines.append(f"{title:12} {noticed:4} of {len(outcomes):4}  {share}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
