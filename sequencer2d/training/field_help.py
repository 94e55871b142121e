"""What each field of a configuration is for: the text that stands below it in its class."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing


def field_texts(cls: type, prefix: str = "") -> dict[str, str]:
    """The dotted path of every leaf field → its text in one line, "" where the name says it all.

    Args:
        cls: a dataclass, whose fields may be dataclasses.
        prefix: of the paths.
    """
    texts: dict[str, str] = {}
    own = _own_texts(cls)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[field.name]):
            texts |= field_texts(hints[field.name], f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            texts[prefix + field.name] = own.get(field.name, "")
    return texts


def _own_texts(cls: type) -> dict[str, str]:
    """The string that follows a field's line, as documentation tools read it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for line, following in itertools.pairwise(definition.body):
        match line, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts
