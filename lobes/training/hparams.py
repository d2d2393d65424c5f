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
from dataclasses import fields
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.comments import CommentedMap
from speechbrain.utils.run_opts import RunOptions

from lobes.errors import ConfigError, LobesError
from lobes.hyperyaml.parts import check_values, expand, load_part, load_tree, referenced
from lobes.hyperyaml.signatures import check_calls
from lobes.hyperyaml.tree import dump, is_reference, merge, nearest, parse_overrides, resolve, walk

__all__ = ["Hparams", "HparamsFile", "load_hparams", "load_part"]

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
        tree, adds = load_tree(self.path, ())
        merge(tree, parse_overrides(overrides, tree), "command line", hints=_RUN_OPTIONS)
        check_values(tree, source)
        self.tree = expand(tree, tree, source)
        check_values(self.tree, source)
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
    used = options | referenced(tree) | set(adds)
    for key, value in tree.items():
        if str(key) in used or isinstance(value, dict | list):
            continue
        near = difflib.get_close_matches(str(key), options, n=1, cutoff=0.87)
        if near:
            raise ConfigError(
                f"{source}: '{key}' is not an option (did you mean '{near[0]}'?); if it is meant, add 'adds: [{key}]'"
            )
