"""The arrows of the house: which room may import which; CONTRIBUTING.md describes them."""

from __future__ import annotations

import ast
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
PLUGINS = {
    target.partition(":")[0]
    for group in ("kickserve.standard", "kickserve.plugins")
    for target in POINTS[group].values()
}
PACKAGES = {path.parent.name: path.parent for path in (ROOT / "plugins").glob("*/__init__.py")}
LIBRARIES = PACKAGES.keys() - PLUGINS
CORE_MAX = 4  # modules of the core that a plugin imports: kickserve.plugins, and three more


def imports(folder):
    """Return the modules that the files of a package import, also inside functions."""
    trees = (ast.parse(file.read_text("utf-8")) for file in folder.rglob("*.py"))
    return {name for tree in trees for name in imported(ast.walk(tree))}


def imported(nodes):
    """Yield the modules that some nodes import."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _modules(node)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def _modules(node):
    """Return the module that names come from, or submodules where `from kickserve import …` names some."""
    below = ROOT / node.module.replace(".", "/")
    modules = {f"{node.module}.{each.name}" for each in node.names if (below / f"{each.name}.py").is_file()}
    return modules or {node.module}


def tops(folder):
    return {name.partition(".")[0] for name in imports(folder)} - {folder.name}


def test_every_plugin_is_a_package():
    assert PACKAGES.keys() >= PLUGINS


def test_the_core_imports_neither_plugins_nor_libraries():
    assert not tops(ROOT / "kickserve") & PACKAGES.keys()


def test_modules_of_the_core_import_each_other_in_no_circle():
    trees = {
        f"kickserve.{file.stem}": ast.parse(file.read_text()) for file in (ROOT / "kickserve").glob("*.py")
    }
    [*TopologicalSorter({name: [*imported(tree.body)] for name, tree in trees.items()}).static_order()]


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_imports_no_plugin(library):
    assert tops(PACKAGES[library]) & PLUGINS == set()


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
def test_a_plugin_imports_no_other(plugin):
    assert tops(PACKAGES[plugin]) & PLUGINS == set()


@pytest.mark.parametrize("plugin", sorted(PLUGINS))
def test_a_plugin_imports_few_modules_of_the_core(plugin):
    core = {name for name in imports(PACKAGES[plugin]) if name.partition(".")[0] == "kickserve"}
    assert len(core) <= CORE_MAX, sorted(core)
