"""Check the calls in a HyperPyYAML tree against the signatures of what they call, before anything runs."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable
from typing import Any

from lobes.errors import ConfigError
from lobes.hyperyaml.tree import is_call, nearest, tag_of, walk


def check_calls(tree: Any, source: str) -> None:
    """Check every ``!new:``, ``!name:``, ``!apply:`` and ``!applyref:`` of a tree.

    Parameters
    ----------
    tree : mapping
        A tree without includes.
    source : str
        The file, named in errors.

    Raises
    ------
    ConfigError
        What is called does not exist, has no such argument, or lacks one that it needs.
    """
    for name, node in walk(tree):
        if is_call(node):
            _check_call(node, f"{source}: {name}" if name else source)


def locate(path: str, where: str) -> Any:
    """Import what a dotted path names.

    Raises
    ------
    ConfigError
        There is no such thing, or importing it fails.
    """
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"{where}: importing '{path}' failed: {error.value!r}") from error
    if found is None:
        parent, _, last = path.rpartition(".")
        try:
            module = pydoc.locate(parent) if parent else None
        except pydoc.ErrorDuringImport:
            module = None
        hint = nearest(last, [entry for entry in dir(module) if entry[0] != "_"]) if module is not None else ""
        raise ConfigError(f"{where}: there is no '{path}'{hint}")
    return found


def _check_call(node: Any, where: str) -> None:
    kind, _, path = tag_of(node).partition(":")
    called = locate(path, where)
    if kind == "!new" and not inspect.isclass(called):
        raise ConfigError(f"{where}: !new:{path} is not a class; !name: or !apply: is for functions")
    if not callable(called):
        return
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return  # written in C, without a signature to read
    positional = list(node) if isinstance(node, list) else []
    keywords = _keywords(node)
    if keywords is None:
        return
    _check_names(signature, keywords, path, where)
    bind: Callable[..., Any] = signature.bind_partial if kind == "!name" else signature.bind
    try:
        bind(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        raise ConfigError(f"{where}: {path} has {error}") from error


def _keywords(node: Any) -> list[str] | None:
    """Names of the keyword arguments of a call; None where they cannot be told from the tree."""
    if not isinstance(node, dict):
        return []
    if set(node) == {"_args", "_kwargs"}:
        return None
    return [str(key) for key in node]


def _check_names(signature: inspect.Signature, keywords: list[str], path: str, where: str) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [parameter.name for parameter in parameters if parameter.kind in named]
    for keyword in keywords:
        if keyword not in names:
            hint = nearest(keyword, names) or f" (it takes {', '.join(names) or 'none'})"
            raise ConfigError(f"{where}: {path} has no argument '{keyword}'{hint}")
