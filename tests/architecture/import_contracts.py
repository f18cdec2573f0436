"""Two kinds of contract that import-linter does not have; pyproject.toml says where they hold.

Both look at direct imports, also those inside functions and under ``TYPE_CHECKING``: what a module writes down is what it knows.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grimp import ImportGraph


class _DirectImports(Contract):
    """Reports direct imports that should not be there."""

    def _judge(self, graph: ImportGraph, pairs: Iterable[tuple[str, str]]) -> ContractCheck:
        found = []
        for importer, imported in sorted(set(pairs)):
            lines = [detail["line_number"] for detail in graph.get_import_details(importer=importer, imported=imported)]
            found.append(f"{importer} -> {imported} (l.{', l.'.join(map(str, lines))})")
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for every import that breaks the contract."""
        for line in check.metadata["found"]:
            output.print_error(f"- {line}", bold=False)
        output.new_line()


class OnlyTheStandardLibrary(_DirectImports):
    """The modules of ``package`` import the standard library and each other, nothing else."""

    package = fields.StringField()

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare what the package imports with the interpreter's own list of modules."""
        package = str(self.package)
        allowed = sys.stdlib_module_names | {package}
        return self._judge(
            graph,
            (
                (module, imported)
                for module in _inside(graph, package)
                for imported in graph.find_modules_directly_imported_by(module)
                if imported.split(".")[0] not in allowed
            ),
        )


class Avoids(_DirectImports):
    """Some modules, with all below them, do not import others; none of them needs to exist yet.

    With ``within``, what the modules reach inside that package by imports is held to the same rule: a brain
    may not keep its clock in a module next door.
    """

    modules = fields.SetField(subfield=fields.StringField())
    forbidden = fields.SetField(subfield=fields.StringField())
    within = fields.StringField(required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Walk the modules in question and look at each of their imports."""
        held = {inner for module in _strings(self.modules) for inner in _inside(graph, module)}
        if self.within is not None:
            held |= _reached(graph, held, within=str(self.within))
        return self._judge(
            graph,
            (
                (module, imported)
                for module in held
                for imported in graph.find_modules_directly_imported_by(module)
                if any(_is_below(imported, name) for name in _strings(self.forbidden))
            ),
        )


def _strings(values: object) -> list[str]:
    assert isinstance(values, set)
    return sorted(map(str, values))


def _is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _inside(graph: ImportGraph, package: str) -> set[str]:
    return {module for module in graph.modules if _is_below(module, package)}


def _reached(graph: ImportGraph, start: set[str], *, within: str) -> set[str]:
    seen, todo = set(start), list(start)
    while todo:
        # The package's own door is left out: importing `agents.queen` says nothing about what else stands there.
        for imported in graph.find_modules_directly_imported_by(todo.pop()) - seen - {within}:
            if _is_below(imported, within):
                seen.add(imported)
                todo.append(imported)
    return seen
