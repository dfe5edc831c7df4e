"""What the scripts in ops/ import is there: neither tests nor type checker run all of them."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("ops", "ops/bench", "ops/chaos", "ops/fuzz", "tests")
SCRIPTS = sorted((ROOT / "ops").rglob("*.py"))


def imported(script):
    """Yield the modules that a script takes names from, with the names."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [each.name for each in node.names]
        elif isinstance(node, ast.Import):
            yield from ((each.name, []) for each in node.names if each.name.startswith("kickserve"))


def defined(file):
    """Return the names that a file has at its top."""
    tree = ast.parse(file.read_text("utf-8"))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_what_a_script_imports_is_there(script):
    for module, names in imported(script):
        if module.startswith("kickserve"):
            found = import_module(module)
            missing = [name for name in names if not hasattr(found, name)]
            assert all(find_spec(f"{module}.{name}") for name in missing), f"{module} has not {missing}"
            continue
        # Its own folder goes first, as Python has it: more than one module is called `serving`.
        files = [ROOT / place / f"{module}.py" for place in (script.parent.relative_to(ROOT), *PLACES)]
        there = [set(names) <= {*defined(file), *wholes(file)} for file in files if file.is_file()]
        assert any(there) or not there, f"{module} has not all of {names}"


def wholes(file):
    """Return the names that a file has from others."""
    return {name for _, names in imported(file) for name in names}
