"""Values held against the function that will be called with them, long before it is."""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlhf_lightning.errors import UserError


def check_call(config: Mapping[str, Any], where: str, given: Iterable[str] = (), without: Collection[str] = ()) -> None:
    """Refuse values that what ``_target_`` names would not take; those nested in it, too.

    Args:
        config: plain values with a ``_target_``.
        where: the option they stand under, such as ``ppo``.
        given: arguments that come from elsewhere.
        without: keys that don't go to the function.

    Raises:
        UserError: naming the option, for a function that isn't there, an option that it lacks or that is missing, or
            a value of another type.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise UserError(f"{where} must name what it is made of, as {where}: {{_target_: package.Name}}; not {config!r}")
    function = _locate(config["_target_"], f"{where}._target_")
    values = {k: v for k, v in config.items() if k not in ("_target_", "_partial_", *without)}
    check_arguments(function, values, where, None if config.get("_partial_") else given)
    for key, value in values.items():
        if isinstance(value, Mapping) and "_target_" in value:
            check_call(value, f"{where}.{key}")


def check_arguments(
    function: Callable[..., Any], values: Mapping[str, Any], where: str, given: Iterable[str] | None
) -> None:
    """The same for a function and its arguments; with ``given`` None arguments may be missing."""
    parameters = inspect.signature(function).parameters
    name = getattr(function, "__name__", str(function))
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in values:
            if key not in parameters:
                close = difflib.get_close_matches(key, parameters, n=1)
                hint = f" Did you mean {where}.{close[0]}?" if close else f" It has {', '.join(parameters)}."
                raise UserError(f"there is no option {where}.{key}: {name} does not take it.{hint}")
    if given is not None:
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in variable]
        if missing := [n for n in required if n not in {*values, *given}]:
            raise UserError(f"{where}.{missing[0]} must be given: {name} needs it")
    hints = _hints(function)
    for key, value in values.items():
        if key in hints:
            check_value(value, hints[key], f"{where}.{key}")


def check_value(value: Any, hint: Any, where: str) -> None:
    """Refuse a value that is clearly not of an annotated type.

    Raises:
        UserError: naming the option and what it takes.
    """
    leaves = _leaves(hint)
    if not any(_fits(value, leaf) for leaf in leaves):
        raise UserError(f"{where} must be {_words(leaves)}, not {value!r}")


def _locate(path: str, where: str) -> Callable[..., Any]:
    import hydra.utils

    try:
        return hydra.utils.get_object(path)
    except Exception as error:
        raise UserError(f"{where}: cannot find {path!r}: {str(error).splitlines()[0]}") from error


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # names that are there for type checkers alone
        return {}


def _leaves(hint: Any) -> list[Any]:
    """The members of a union, in its order; everything else by itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [leaf for member in get_args(hint) for leaf in _leaves(member)]
    return [hint]


def _fits(value: Any, leaf: Any) -> bool:
    if get_origin(leaf) is Literal:
        return value in get_args(leaf)
    leaf = get_origin(leaf) or leaf
    if leaf is Any or isinstance(leaf, TypeVar) or not inspect.isclass(leaf):
        return True
    simple = (int, float, bool, str, type(None))
    if isinstance(value, bool):
        return leaf is bool or leaf not in simple
    if leaf is float:
        return isinstance(value, (int, float))
    if leaf is Path:
        return isinstance(value, str)
    if leaf in simple:
        return isinstance(value, leaf)
    if value is None or isinstance(value, (int, float)):
        return isinstance(value, leaf)
    if isinstance(value, str):
        return isinstance(value, leaf) or bool(getattr(leaf, "_is_protocol", False))
    return True  # lists and dicts become what they are meant to be elsewhere


def _words(leaves: list[Any]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    said: list[str] = []
    for leaf in leaves:
        if get_origin(leaf) is Literal:
            said += [str(choice) for choice in get_args(leaf)]
        elif leaf in names:
            said.append(names[leaf])
    return ", ".join(said[:-1]) + " or " + said[-1] if len(said) > 1 else "".join(said) or "of another type"
