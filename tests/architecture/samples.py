"""Makes an error of any class, with plausible facts, from the types of its fields."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing

import hive_errors
from hive_errors import HiveError


def every_error() -> list[type[HiveError]]:
    """Return all error classes of the hive, also of modules that the public door does not show, in order of their codes."""
    for module in pkgutil.walk_packages(hive_errors.__path__, "hive_errors."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    todo, found = [HiveError], set[type[HiveError]]()
    while todo:
        for child in todo.pop().__subclasses__():
            # Test modules may define errors of their own; those of the packages are the catalogue.
            if child not in found and child.__module__.split(".")[0] == "hive_errors":
                found.add(child)
                todo.append(child)
    return sorted(found, key=lambda error: (error.code, error.__name__))


def sample_error(error: type[HiveError]) -> HiveError:
    """Return an error with a value for each of its fields."""
    hints = typing.get_type_hints(error)
    return error(**{field.name: _sample(hints[field.name], field.name) for field in dataclasses.fields(error)})


def _sample(kind: object, name: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _sample(next(argument for argument in arguments if argument is not type(None)), name)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        return tuple(_sample(argument, name) for argument in arguments if argument is not Ellipsis)
    if origin in (list, set, frozenset):
        return origin([_sample(arguments[0], name)])
    if origin is dict:
        return {_sample(arguments[0], name): _sample(arguments[1], name)}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _sample(hints[field.name], field.name) for field in dataclasses.fields(kind)})
    simple = {str: f"some-{name}", int: 7, float: 1.5, bool: True, bytes: b"sample"}
    assert kind in simple, f"a fact of an error is a plain value that pickles, not {kind}"
    return simple[kind]
