"""The places in a source file where one point can be changed, and the changed text.

A change replaces one stretch of the source. Its kinds:

    number      a literal number that is no default: n → n + 1, a fraction → its double
    comparison  the opposite comparison: < → >=, == → !=, in → not in, is → is not
    boundary    < ↔ <=, > ↔ >=
    arithmetic  + ↔ -, * ↔ /, // → /, % → *, ** → *, @ stays; a sign is dropped
    factor      one side of a product or quotient by a literal number is dropped (a unit, such as 100 for percent)
    boolean     and ↔ or, not x → x, True ↔ False
    conversion  a conversion is dropped: x.float() → x, int(x) → x, max(a, b) → a
    default     the default of an argument or of a field: another number, the other boolean, another string
    key         a string that is a key: in a subscript, a dictionary, or the argument of `.get`

Docstrings, annotations, messages (what is raised or said), `__all__` and the insides of f-strings are left alone, and
so is what does nothing on a machine without a GPU: `.cpu()`, `.to(device)` and `non_blocking`.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = ("number", "comparison", "boundary", "arithmetic", "factor", "boolean", "conversion", "default", "key")

_OPPOSITE = {
    ast.Lt: ">=", ast.GtE: "<", ast.Gt: "<=", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_NEIGHBOR = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
_OPERATOR = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*", ast.Pow: "*"}
_METHODS = frozenset({
    "float", "double", "half", "bfloat16", "long", "int", "bool", "to", "astype", "type_as", "item", "tolist", "numpy",
    "detach", "clone", "copy", "contiguous", "eval", "flatten", "squeeze", "clamp", "clip", "strip", "lower",
    "upper", "casefold", "resolve", "absolute", "expanduser",
})  # fmt: skip
_FUNCTIONS = frozenset(
    {"int", "float", "str", "bool", "abs", "round", "tuple", "list", "sorted", "set", "max", "min", "Path"}
)
_SAYS = frozenset({"say", "print", "warning", "info", "debug", "error", "echo", "log", "fail", "warn"})


@dataclass(frozen=True)
class Site:
    """One possible change of a file.

    Attributes:
        kind: one of `KINDS`.
        function: the qualified name of the function that the place is in; "" at the level of the module.
        line: number of the line on which the place begins, from 1.
        text: that line, stripped.
        start, end: the place in the UTF-8 bytes of the file.
        before, after: the text there, and what replaces it.
    """

    kind: str
    function: str
    line: int
    text: str
    start: int
    end: int
    before: str
    after: str

    @property
    def change(self) -> str:
        """The change as a person reads it."""
        return f"{self.before} → {self.after}"

    def apply(self, source: bytes) -> bytes:
        """The source with this change."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def find_sites(path: Path) -> list[Site]:
    """Every possible change of a file, in the order of its text."""
    return sorted(_Finder(path.read_bytes()).sites, key=lambda site: (site.start, site.end, site.after))


class _Finder(ast.NodeVisitor):
    """Collects sites. `defaults` holds the nodes that are defaults, `names` the enclosing classes and functions."""

    def __init__(self, source: bytes) -> None:
        self.source, self.lines = source, source.splitlines(keepends=True)
        self.offsets = [0]
        for line in self.lines:
            self.offsets.append(self.offsets[-1] + len(line))
        self.sites: list[Site] = []
        self.names: list[str] = []
        self.in_function: list[bool] = [False]
        self.defaults: set[ast.AST] = set()
        self.visit(ast.parse(source))

    # Places

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The bytes of a node."""
        start = self.offsets[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.offsets[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def add(self, kind: str, node: ast.AST, after: str) -> None:
        self.add_span(kind, *self.span(node), after)

    def add_span(self, kind: str, start: int, end: int, after: str) -> None:
        line = next(number for number, offset in enumerate(self.offsets) if offset > start)
        before = self.source[start:end].decode()
        if before != after:
            text = self.lines[line - 1].decode().strip()
            function = ".".join(self.names) if self.in_function[-1] else ""
            self.sites.append(Site(kind, function, line, text, start, end, before, after))

    def between(self, kind: str, left: ast.AST, right: ast.AST, symbol: str, after: str) -> None:
        """A change of the operator between two operands, whose own parentheses may lie between, too."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end].decode()
        if "#" in gap or gap.count(symbol) != 1:
            return
        at = start + len(gap[: gap.index(symbol)].encode())
        self.add_span(kind, at, at + len(symbol), after)

    # What is left alone

    def visit_Raise(self, node: ast.Raise) -> None: ...

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets):
            self.visit(node.value)

    # Functions, classes and their defaults

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        self.defaults |= {default for default in (*arguments.defaults, *arguments.kw_defaults) if default is not None}
        self._enter(node.name, [*arguments.defaults, *filter(None, arguments.kw_defaults)], node.body, function=True)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  (the name that the visitor looks for)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node.name, [], node.body, function=self.in_function[-1])

    def _enter(self, name: str, outside: list[ast.expr], body: list[ast.stmt], *, function: bool) -> None:
        for each in outside:
            self.visit(each)
        self.names.append(name)
        self.in_function.append(function)
        for statement in body:
            self.visit(statement)
        self.names.pop()
        self.in_function.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is None:
            return
        if self.names and not self.in_function[-1]:  # a field of a class
            self.defaults.add(node.value)
        self.visit(node.value)

    # Changes

    def visit_Constant(self, node: ast.Constant) -> None:
        value, default = node.value, node in self.defaults
        if isinstance(value, bool):
            self.add("default" if default else "boolean", node, str(not value))
        elif isinstance(value, int):
            self.add("default" if default else "number", node, str(value + 1))
        elif isinstance(value, float):
            self.add("default" if default else "number", node, repr(2 * value if value else 1.0))
        elif isinstance(value, str) and default and value:
            self.add("default", node, repr(value + "x"))

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            symbol = _symbol(operator)
            self.between("comparison", left, right, symbol, _OPPOSITE[type(operator)])
            if type(operator) in _NEIGHBOR:
                self.between("boundary", left, right, symbol, _NEIGHBOR[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _OPERATOR and not (
            isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        ):
            self.between("arithmetic", node.left, node.right, _symbol(node.op), _OPERATOR[type(node.op)])
            if isinstance(node.op, ast.Mult | ast.Div):
                for literal, kept in ((node.left, node.right), (node.right, node.left)):
                    if isinstance(literal, ast.Constant) and not (
                        literal is node.left and isinstance(node.op, ast.Div)
                    ):
                        self.add("factor", node, f"({self.text(kept)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        symbol, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between("boolean", left, right, symbol, after)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add("boolean", node, f"({self.text(node.operand)})")
        elif isinstance(node.op, ast.USub):
            self.add("arithmetic", node, f"({self.text(node.operand)})")
            if isinstance(node.operand, ast.Constant):
                return
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in _METHODS and not _only_moves(node):
            self.add("conversion", node, f"({self.text(called.value)})")
        elif isinstance(called, ast.Name) and called.id in _FUNCTIONS and node.args and not node.keywords:
            first = node.args[0]
            if not isinstance(first, ast.Starred | ast.GeneratorExp):
                self.add("conversion", node, f"({self.text(first)})")
        if isinstance(called, ast.Attribute) and called.attr in ("get", "pop", "setdefault") and node.args:
            self._key(node.args[0])
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name not in _SAYS:
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("strict", "non_blocking"):  # strict, of zip, only matters where another fault is
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._key(node.slice)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key in node.keys:
            if key is not None:
                self._key(key)
        self.generic_visit(node)

    def _key(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            self.add("key", node, repr(node.value + "x"))


def _only_moves(call: ast.Call) -> bool:
    """Whether a call is `.to(device)`, which changes neither dtype nor layout."""
    names = [getattr(argument, "attr", getattr(argument, "id", "")) for argument in call.args]
    return (
        getattr(call.func, "attr", "") == "to"
        and names == ["device"]
        and not {keyword.arg for keyword in call.keywords} - {"non_blocking"}
    )


def _symbol(operator: ast.AST) -> str:
    """The text of an operator."""
    return {
        ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
        ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
        ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    }[type(operator)]  # fmt: skip


def files(root: Path, folder: str) -> Iterator[Path]:
    """The package's files of a folder ("" for those at its top), without kernels and without what is only imported."""
    base = root / "sequencer2d" / folder
    for path in sorted(base.rglob("*.py") if folder else base.glob("*.py")):
        if not is_kernel(path):
            yield path


def is_kernel(path: Path) -> bool:
    """Whether a file holds kernels, which are no ordinary Python: they have tests of their own in an interpreter."""
    text = path.read_text(encoding="utf-8")
    return "@triton.jit" in text or "@gluon.jit" in text
