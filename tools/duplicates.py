"""Counts passages of code that stand twice: `python -m tools.duplicates [FOLDER ...]`.

A passage is a run of at least six lines that are the same in two places, or long lines of the same shape: alike but for
names, strings and numbers. Blank lines, comments, docstrings, imports and lines of punctuation do not count, and rows
of a table have one shape by right. Pairs of files that share a passage for a reason are listed with it in
`duplicates.json`. `--check` fails on a pair without a reason, and on a reason without its pair. `--most N` fails on
more than N pairs.
"""

import argparse
import ast
import io
import json
import keyword
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("sequencer2d", "benchmarks", "tools", "tests")
REASONS = Path(__file__).with_suffix(".json")
LEAST = 6
"""Lines that a passage has at least."""
LONG = 60
"""Tokens that the six lines have at least if only their shape is the same: short lines are alike by chance."""
COMMON = 8
"""A line that stands in more places than this is an idiom, such as the head of an argument parser."""


@dataclass(frozen=True)
class Pair:
    """Two places that share a passage.

    Attributes:
        first, second: their files, from the root, in the order of the alphabet.
        first_line, second_line: where the longest shared passage begins.
        lines: how many lines of code it has.
        same: whether these are equal to the letter; otherwise their shape is.
        runs: how many passages the two files share.
    """

    first: str
    first_line: int
    second: str
    second_line: int
    lines: int
    same: bool
    runs: int

    def __str__(self) -> str:
        kind = "the same" if self.same else "the same shape"
        more = f", and {self.runs - 1} more" if self.runs > 1 else ""
        return f"{self.first}:{self.first_line} ~ {self.second}:{self.second_line}: {self.lines} lines, {kind}{more}"


Line = tuple[int, str, str]
"""A line of code: its number, its text and its shape, which is "" for a row of a table."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.duplicates", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="*", default=FOLDERS)
    parser.add_argument(
        "--check", action="store_true", help="fail unless every pair has a reason, and every reason a pair"
    )
    parser.add_argument("--most", type=int, metavar="N", help="fail if there are more than N pairs")
    arguments = parser.parse_args(argv)
    pairs, reasons = find_pairs(python_files(arguments.folders)), load_reasons()
    for pair in pairs:
        reason = reasons.get((pair.first, pair.second))
        print(f"{pair}{f' ({reason})' if reason else ''}")
    print(f"{len(pairs)} pairs")
    if arguments.most is not None and len(pairs) > arguments.most:
        print(f"duplicates: more than {arguments.most} pairs: let one piece of code serve both places")
        return 1
    if not arguments.check:
        return 0
    found = {(pair.first, pair.second) for pair in pairs}
    for names in sorted(found ^ set(reasons)):
        print(f"duplicates: {' ~ '.join(names)} {'has no reason' if names in found else 'has a reason, but is gone'}")
    return int(found != set(reasons))


def python_files(folders: Iterable[str]) -> dict[str, str]:
    """The text of every file of Python in some folders, by its path from the root."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def load_reasons() -> dict[tuple[str, str], str]:
    """Why pairs of files may share passages."""
    entries = json.loads(REASONS.read_text(encoding="utf-8"))
    return {(entry["first"], entry["second"]): entry["reason"] for entry in entries}


def find_pairs(files: dict[str, str]) -> list[Pair]:
    """The pairs of files, or of places in one file, that share passages; those with the longest first."""
    lines = {name: code_lines(text) for name, text in files.items()}
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, code in lines.items():
        for start in range(len(code) - LEAST + 1):
            window = code[start : start + LEAST]
            places[tuple(text for _, text, _ in window)].append((name, start))
            shapes = tuple(shape for _, _, shape in window)
            if all(shapes) and sum(map(len, map(str.split, shapes))) >= LONG:
                places[shapes].append((name, start))
    shared: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for found in places.values():
        if len(found) <= COMMON:
            for index, (first, start) in enumerate(found):
                for second, other in found[index + 1 :]:
                    if first != second or other - start >= LEAST:
                        shared[first, second].add((start, other))
    pairs = [_pair(names, lines[names[0]], lines[names[1]], starts) for names, starts in shared.items()]
    return sorted(pairs, key=lambda pair: (-pair.lines, pair.first, pair.second))


def _pair(names: tuple[str, str], first: list[Line], second: list[Line], starts: set[tuple[int, int]]) -> Pair:
    """The longest of the runs that windows at `starts` join to."""
    runs = []
    for start, other in sorted(starts):
        if (start - 1, other - 1) not in starts:
            length = LEAST
            while (start + length - LEAST + 1, other + length - LEAST + 1) in starts:
                length += 1
            runs.append((length, start, other))
    length, start, other = max(runs)
    same = [text for _, text, _ in first[start : start + length]] == [
        text for _, text, _ in second[other : other + length]
    ]
    return Pair(names[0], first[start][0], names[1], second[other][0], length, same, len(runs))


def code_lines(source: str) -> list[Line]:
    """The lines of a file that count."""
    shapes: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            shapes[token.start[0]].append(_shape(token))
    tree, texts = ast.parse(source), source.splitlines()
    passed, rows = set(_passed_over(tree)), set(_rows(tree))
    return [
        (number, texts[number - 1].strip(), "" if number in rows else " ".join(shape))
        for number, shape in sorted(shapes.items())
        if number not in passed and number <= len(texts) and re.search(r"\w", " ".join(shape))
    ]


def _shape(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return token.string if keyword.iskeyword(token.string) else "name"
    return {tokenize.STRING: "string", tokenize.NUMBER: "number"}.get(token.type, token.string)


def _passed_over(tree: ast.Module) -> Iterator[int]:
    """The lines of imports and docstrings."""
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]


def _rows(tree: ast.Module) -> Iterator[int]:
    """The lines of tables: literals that are assigned to a name of the module, and those that parametrize a test."""
    tables: list[ast.expr | ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple | ast.List | ast.Dict):
            tables.append(node)
        elif isinstance(node, ast.FunctionDef):
            calls = [decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
            tables += [value for call in calls for value in call.args if isinstance(value, ast.Tuple | ast.List)]
    for table in tables:
        yield from range(table.lineno, (table.end_lineno or table.lineno) + 1)


if __name__ == "__main__":
    sys.exit(main())
