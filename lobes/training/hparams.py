"""Hyperparameter files: HyperPyYAML that refuses what is misspelt and lets a file be a delta of another.

On top of HyperPyYAML:

``base: other.yaml``
    The file is a delta: it is merged into `other.yaml`, whose path is relative to the file. An untagged mapping is
    merged key by key; a scalar, a list or a tagged node replaces what was there. Bases can have bases.
``adds: [name, a.b]``
    Keys that the base does not have, and that are meant to be new. Keys that the delta itself refers to with
    ``!ref <name>``, and arguments of a ``!new:``, ``!name:`` or ``!apply:``, need not be listed.
``!include:part.yaml``
    As in HyperPyYAML: a part sees its own keys only, and the mapping under the tag overrides them. Paths are relative
    to the file that includes; a part may have a base; its keys can be overridden from the command line.
``--a.b 5``
    Overrides reach into mappings, calls and includes.

Everything that is not a key, an argument or a class that exists is a `ConfigError` that names the nearest one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap
from speechbrain.utils.run_opts import RunOptions

from lobes.errors import ConfigError, LobesError
from lobes.training.signatures import check_calls
from lobes.training.yaml_tree import (
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

#: Keys that `lobes.training` reads but does not require, besides SpeechBrain's run options.
_OPTIONAL_KEYS = ("seed", "output_folder", "lr_scheduler")
_RUN_OPTIONS = tuple(option.name for option in fields(RunOptions))


class Hparams(dict):
    """A dict whose missing keys are explained.

    Examples
    --------
    >>> Hparams(epoch_counter=1)["epoch_counts"]
    Traceback (most recent call last):
        ...
    lobes.errors.ConfigError: hyperparameters: 'epoch_counts' is missing (did you mean 'epoch_counter'?)
    """

    source = "hyperparameters"

    def __missing__(self, key: str) -> Any:
        raise ConfigError(f"{self.source}: '{key}' is missing{nearest(key, map(str, self))}")


class HparamsFile:
    """A hyperparameter file, merged with its bases, parts and overrides and checked, but not yet run.

    Parameters
    ----------
    path : str or Path
        The file.
    overrides : str or dict
        YAML lines ``key: value``, as SpeechBrain makes of the command line, or a mapping. Keys may be dotted.

    Raises
    ------
    ConfigError
        As in `load_hparams`.

    Attributes
    ----------
    tree : CommentedMap
        The merged file; includes are expanded, references are not.
    text : str
        The same as YAML: a file of its own that can be loaded and overridden again.
    """

    def __init__(self, path: str | Path, overrides: str | dict[str, Any] = "") -> None:
        self.path = Path(path)
        source = str(path)
        tree, adds = _load_tree(self.path, ())
        merge(tree, parse_overrides(overrides, tree), "command line", hints=_RUN_OPTIONS)
        _check_values(tree, source)
        self.tree = _expand(tree, tree, source)
        _check_values(self.tree, source)
        _check_circles(self.tree, source)
        _check_options(self.tree, adds, source)
        check_calls(self.tree, source)
        self.text = dump(self.tree)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a plain top-level value without running the file, with references resolved."""
        return resolve(self.tree.get(key, default), self.tree)

    def load(self) -> Hparams:
        """Construct everything that the file describes."""
        try:
            hparams = Hparams(load_hyperpyyaml(self.text))
        except LobesError:
            raise
        except (TypeError, ValueError, ImportError, OSError) as error:
            parts = [str(part) for part in error.args] or [type(error).__name__]
            raise ConfigError(f"{self.path}: {' '.join(': '.join(parts).split())}") from error
        hparams.source = str(self.path)
        return hparams


def load_hparams(path: str | Path, overrides: str | dict[str, Any] = "") -> Hparams:
    """Load a hyperparameter file strictly; see the module's documentation for what it may hold.

    Parameters
    ----------
    path : str or Path
        The file.
    overrides : str or dict
        YAML lines ``key: value``, as SpeechBrain makes of the command line, or a mapping. Keys may be dotted.

    Returns
    -------
    Hparams
        A dict of the constructed values.

    Raises
    ------
    ConfigError
        A file that is missing or not YAML; a key, override, argument, class or reference that does not exist; a
        ``!PLACEHOLDER`` without a value; a constructor that refused its arguments.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny.yaml"
    ...     _ = path.write_text("loader: {batch_seconds: 30}")
    ...     load_hparams(path, "loader.batch_seconds: 60")
    {'loader': {'batch_seconds': 60}}
    """
    return HparamsFile(path, overrides).load()


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
    path = Path(path).resolve()
    tree = CommentedMap(part=parse(f"!include:{path} {{}}", str(path)))
    merge(tree["part"], parse_overrides(overrides, tree["part"]), "overrides")
    tree = _expand(tree, tree, str(path))
    check_calls(tree, str(path))
    try:
        return load_hyperpyyaml(dump(tree))["part"]
    except (TypeError, ValueError, ImportError, OSError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def _load_tree(path: Path, children: tuple[Path, ...]) -> tuple[CommentedMap, list[str]]:
    """Read a file and merge it into its bases; also return the names that it adds."""
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
    tree, base_adds = _load_tree(base_path, (*children, path.resolve()))
    merge(tree, delta, str(path), {*adds, *_referenced(delta)})
    return tree, [*base_adds, *adds]


def _references(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield (name of the node, what it refers to) for each ``!ref`` and ``!copy``."""
    for name, node in walk(tree):
        if is_reference(node):
            for reference in REFERENCE.findall(str(node.value)):
                yield name, reference


def _referenced(tree: Any) -> set[str]:
    """Top-level keys that something in the tree refers to."""
    return {re.split(r"[\[.]", reference)[0] for _, reference in _references(tree)}


def _expand(node: Any, root: CommentedMap, source: str) -> Any:
    """Replace includes below a node by what they include, in the order of the document."""
    if isinstance(node, dict):
        for key in node:
            node[key] = _expand(node[key], root, source)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            node[index] = _expand(item, root, source)
    if not tag_of(node).startswith(INCLUDE):
        return node
    path = Path(tag_of(node)[len(INCLUDE) :])
    if not path.is_file():
        raise ConfigError(f"{source}: !include:{path} is not a file; paths are relative to the file that includes")
    overrides = CommentedMap(node) if isinstance(node, dict) else CommentedMap()
    part, _ = _load_tree(path, ())
    merge(part, resolve(overrides, root), f"{source}: !include:{path.name}")
    _check_values(part, str(path))
    part = _expand(part, part, str(path))
    return parse(resolve_references(StringIO(dump(part))).read(), str(path))


def _check_values(tree: CommentedMap, source: str) -> None:
    """Refuse placeholders without a value and references to nothing."""
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


def _check_circles(tree: CommentedMap, source: str) -> None:
    """Follow every reference to its end."""
    for name, node in walk(tree):
        if is_reference(node):
            try:
                resolve(node, tree)
            except (ConfigError, ValueError) as error:
                raise ConfigError(f"{source}: '{name}': {error}") from error


def _check_options(tree: CommentedMap, adds: list[str], source: str) -> None:
    """Refuse a top-level value that nothing refers to and that is nearly the name of an option."""
    options = {*_RUN_OPTIONS, *_OPTIONAL_KEYS}
    used = options | _referenced(tree) | set(adds)
    for key, value in tree.items():
        if str(key) in used or isinstance(value, dict | list):
            continue
        near = difflib.get_close_matches(str(key), options, n=1, cutoff=0.87)
        if near:
            raise ConfigError(
                f"{source}: '{key}' is not an option (did you mean '{near[0]}'?); if it is meant, add 'adds: [{key}]'"
            )
