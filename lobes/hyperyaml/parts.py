"""Parts of a configuration: files with a base, files that others include, and what one of them alone describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap

from lobes.errors import ConfigError
from lobes.hyperyaml.signatures import check_calls
from lobes.hyperyaml.tree import (
    INCLUDE,
    REFERENCE,
    dump,
    is_reference,
    merge,
    nearest,
    parse,
    parse_overrides,
    read,
    resolve,
    tag_of,
    walk,
)


def load_part(path: str | Path, overrides: str | dict[str, Any] = "") -> Any:
    """Construct what a part describes, such as the encoder of ``hparams/encoders/tiny.yaml``.

    Parameters
    ----------
    path : str or Path
        A YAML file for ``!include:``; it may have a base.
    overrides : str or dict
        As for `load_hparams`.

    Returns
    -------
    Any

    Raises
    ------
    ConfigError
        As for `load_hparams`.
    """
    return build_part(part_tree(path, overrides), path)


def part_tree(path: str | Path, overrides: str | dict[str, Any] = "") -> CommentedMap:
    """What a part describes, merged with its bases, its references resolved and its calls checked, under ``part``.

    Raises
    ------
    ConfigError
        As for `load_part`, but for what its constructors refuse.
    """
    path = Path(path).resolve()
    tree = CommentedMap(part=parse(f"!include:{path} {{}}", str(path)))
    merge(tree["part"], parse_overrides(overrides, tree["part"]), "overrides")
    tree = expand(tree, tree, str(path))
    check_calls(tree, str(path))
    return tree


def build_part(tree: CommentedMap, path: str | Path) -> Any:
    """Construct what `part_tree` gave for a path.

    Raises
    ------
    ConfigError
        A constructor refused its arguments.
    """
    try:
        return load_hyperpyyaml(dump(tree))["part"]
    except (TypeError, ValueError, ImportError, OSError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def load_tree(path: Path, children: tuple[Path, ...]) -> tuple[CommentedMap, list[str]]:
    """Read a file and merge it into its bases; also return the names that it adds.

    Raises
    ------
    ConfigError
        A file is missing, no mapping, or its own base, or a key of a delta does not exist.
    """
    if path.resolve() in children:
        raise ConfigError(f"{path}: is its own base, through {children[-1]}")
    delta = read(path)
    base = delta.pop("base", None)
    adds = delta.pop("adds", None) or []
    names = {name for name, _ in walk(delta)}
    for name in adds:
        if name not in names:
            raise ConfigError(f"{path}: adds lists '{name}', which is not in the file{nearest(name, names)}")
    if base is None:
        return delta, list(adds)
    base_path = path.parent / str(base)
    if not base_path.is_file():
        raise ConfigError(f"{path}: base '{base}' is not a file; its path is relative to {path.parent}")
    tree, base_adds = load_tree(base_path, (*children, path.resolve()))
    merge(tree, delta, str(path), {*adds, *referenced(delta)})
    return tree, [*base_adds, *adds]


def _references(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield (name of the node, what it refers to) for each ``!ref`` and ``!copy``."""
    for name, node in walk(tree):
        if is_reference(node):
            for reference in REFERENCE.findall(str(node.value)):
                yield name, reference


def referenced(tree: Any) -> set[str]:
    """Top-level keys that something in the tree refers to."""
    return {re.split(r"[\[.]", reference)[0] for _, reference in _references(tree)}


def expand(node: Any, root: CommentedMap, source: str) -> Any:
    """Replace includes below a node by what they include, in the order of the document.

    Raises
    ------
    ConfigError
        An included file is missing, or something in it is wrong.
    """
    if isinstance(node, dict):
        for key in node:
            node[key] = expand(node[key], root, source)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            node[index] = expand(item, root, source)
    if not tag_of(node).startswith(INCLUDE):
        return node
    path = Path(tag_of(node)[len(INCLUDE) :])
    if not path.is_file():
        raise ConfigError(f"{source}: !include:{path} is not a file; paths are relative to the file that includes")
    overrides = CommentedMap(node) if isinstance(node, dict) else CommentedMap()
    part, _ = load_tree(path, ())
    merge(part, resolve(overrides, root), f"{source}: !include:{path.name}")
    check_values(part, str(path))
    part = expand(part, part, str(path))
    return parse(resolve_references(StringIO(dump(part))).read(), str(path))


def check_values(tree: CommentedMap, source: str) -> None:
    """Refuse placeholders without a value and references to nothing.

    Raises
    ------
    ConfigError
        There is one.
    """
    for name, node in walk(tree):
        if tag_of(node) == "!PLACEHOLDER":
            raise ConfigError(f"{source}: '{name}' has no value yet: give it with --{name}=…")
    for name, reference in _references(tree):
        branch: Any = tree
        for part in reference.split(".")[0].split("["):
            key = part.strip("]")
            if not isinstance(branch, dict) or tag_of(branch).startswith(INCLUDE):
                break
            if key not in branch:
                hint = nearest(key, map(str, branch))
                raise ConfigError(f"{source}: '{name}' refers to <{reference}>, but there is no '{key}'{hint}")
            branch = branch[key]
