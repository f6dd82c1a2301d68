"""What the stub says of the compiled half is what that says of itself."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from audiosocket import _core


def documented() -> Iterator[tuple[str, str]]:
    """Names in the stub, and their documentation."""
    path = Path(_core.__file__).with_name("_core.pyi")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
            yield node.name, text
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (text := ast.get_docstring(method)):
                    yield f"{node.name}.{method.name}", text


@pytest.mark.parametrize(("name", "text"), list(documented()))
def test_the_stub_has_the_documentation_of_the_module(name: str, text: str) -> None:
    item: object = _core
    for part in name.split("."):
        item = getattr(item, part)
    assert inspect.getdoc(item) == text
