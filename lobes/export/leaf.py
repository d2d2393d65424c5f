"""Encoders by a leaf: a YAML file that describes one, such as ``hparams/encoders/time_expansion.yaml``.

Whoever names a leaf trusts it as a recipe's YAML: it may name any class and call any function. So nothing that comes
from elsewhere is ever taken for one, no folder, no model of a hub; and what is saved of its encoder is again a file
that `lobes.export.trusted` reads.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML, Tag
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from torch import Tensor, nn

from lobes.encoders.hf_source import PREFIX
from lobes.encoders.upstream import UpstreamEncoder
from lobes.errors import CheckpointError, ConfigError, LobesError
from lobes.export.trusted import check_encoder, encoder_yaml
from lobes.hyperyaml.parts import build_part, load_tree, part_tree
from lobes.hyperyaml.signatures import locate
from lobes.hyperyaml.tree import dump, is_call, tag_of, walk

LEAVES = (".yaml", ".yml")
#: What another encoder is loaded by, inside a leaf.
_LOADERS = ("!apply:lobes.export.load_encoder", "!apply:lobes.export.folder.load_encoder")
_EXPECTED = "expected a leaf, whose root is a call such as !new:lobes.encoders.TimeExpansion: see hparams/encoders"


def is_leaf(source: str | Path) -> bool:
    """Whether an encoder's source names a leaf: a YAML file, there or not.

    Example
    -------
    >>> [is_leaf(source) for source in ("mine/vggish.yaml", "sm-tiny", "hf:someone/model.yaml")]
    [True, False, False]
    """
    text = str(source)
    return text.endswith(LEAVES) and not text.startswith(PREFIX) and not Path(text).is_dir()


def load_leaf(source: str | Path, untrained: bool, seed: int) -> nn.Module:
    """Build the encoder that a leaf describes, running what it names.

    Arguments
    ---------
    source : str or Path
        The file. Its root is a call; it may have a base.
    untrained : bool
        Random weights: each call in the leaf that has an argument ``untrained`` gets True (and the seed, where it has
        an argument ``seed``), and each that has ``weights`` gets None. What else loads weights is not known.
    seed : int
        Of what the leaf initialises. The global random state is left as it was.

    Returns
    -------
    nn.Module
        In float32, in evaluation mode, with the attribute ``leaf``, which tells its content: see `leaf_digest`.

    Raises
    ------
    ConfigError
        There is no such file, something in it is wrong, its root is no call, or what it gives breaks the Encoder
        contract.
    CheckpointError
        Weights that it names are missing or damaged.
    """
    path = Path(source)
    tree = _tree(path)
    digest = _digest(tree)
    if untrained:
        for _, node in list(walk(tree)):
            _without_weights(node, tree, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            encoder = build_part(tree, path)
        except LobesError as error:
            raise type(error)(f"encoder '{path}': {str(error).removeprefix(f'{path}: ')}") from error
        _check_contract(encoder, path)
    encoder.leaf = digest  # so that it is part of `lobes.distillation.Teacher.fingerprint`
    return encoder.float().eval()


def leaf_digest(source: str | Path) -> str:
    """SHA-256 of what a leaf says, with its bases; comments and layout do not count.

    Raises
    ------
    ConfigError
        As `load_leaf`, of the file.
    """
    return _digest(_tree(Path(source)))


def leaf_document(source: str | Path) -> str:
    """A leaf merged with its bases, as a file of its own without comments.

    Raises
    ------
    ConfigError
        As `load_leaf`, of the file.
    """
    return dump(_bare(_tree(Path(source))["part"]))


def leaf_text(source: str | Path, encoder: nn.Module) -> str:
    """The HyperPyYAML text that describes the encoder of a leaf without what it was loaded from.

    Arguments
    ---------
    source : str or Path
        The leaf.
    encoder : nn.Module
        What `load_leaf` gave for it.

    Raises
    ------
    ConfigError
        The leaf names what `load_encoder` would not build again of an encoder's folder: code of one's own.
    """
    path = Path(source)
    text = encoder_yaml(dump(CommentedMap(encoder=_bare(_described(_tree(path)["part"], encoder)))))
    try:
        check_encoder(text, str(path))
    except CheckpointError as error:
        raise ConfigError(
            f"{error}; its encoder can be probed and tuned, and not saved: what is loaded from a folder is never code"
        ) from error
    return text


def _tree(path: Path) -> CommentedMap:
    """What a leaf describes, under ``part``."""
    if not path.is_file():
        raise ConfigError(f"encoder '{path}': no such file; {_EXPECTED}")
    merged, _ = load_tree(path, ())
    if not tag_of(merged).startswith(("!new:", "!apply:")):
        raise ConfigError(f"encoder '{path}': its root is no !new: of an encoder; {_EXPECTED}")
    for name, node in walk(merged):
        if tag_of(node) == "!PLACEHOLDER":
            raise ConfigError(f"encoder '{path}': '{name}' has no value yet; copy the leaf, and give it there")
    return part_tree(path)


def _without_weights(node: Any, tree: CommentedMap, seed: int) -> None:
    """Tell a call to leave its weights random, if it can."""
    if not is_call(node):
        return
    called = locate(tag_of(node).partition(":")[2], "leaf")
    parameters = list(inspect.signature(called).parameters)
    given = {"untrained": True, "weights": None, "seed": seed}
    told = {name: value for name, value in given.items() if name in parameters}
    if not told.keys() & {"untrained", "weights"}:
        return
    named = dict(zip(parameters, node, strict=False)) if isinstance(node, list) else node
    arguments = CommentedMap(named) if isinstance(named, dict) else CommentedMap()
    arguments.update(told)
    arguments.yaml_set_ctag(Tag(suffix=tag_of(node)))
    _replace(tree, node, arguments)


def _replace(tree: Any, old: Any, new: Any) -> None:
    """Put a node in the place of another, wherever in the tree that is."""
    for _, node in walk(tree):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if value is old:
                node[key] = new


def _described(node: Any, module: nn.Module) -> Any:
    """A node whose models from elsewhere, and encoders of folders, are described by what they are."""
    if isinstance(module, UpstreamEncoder):
        return YAML().load(module.hparams_text())["encoder"]
    if tag_of(node) in _LOADERS:
        from lobes.export.folder import encoder_text

        source = node["source"] if isinstance(node, dict) else node[0]
        return YAML().load(encoder_yaml(encoder_text(source, module)))["encoder"]
    if isinstance(node, dict):
        node = copy.copy(node)
        for key, value in node.items():
            part = getattr(module, str(key), None)
            if is_call(value) and isinstance(part, nn.Module):
                node[key] = _described(value, part)
    return node


def _bare(node: Any) -> Any:
    """A copy without comments."""
    tag = tag_of(node)
    if isinstance(node, TaggedScalar):
        return TaggedScalar(value=node.value, tag=Tag(suffix=tag))
    if isinstance(node, dict):
        bare: Any = CommentedMap((key, _bare(value)) for key, value in node.items())
    elif isinstance(node, list):
        bare = CommentedSeq(_bare(value) for value in node)
    else:
        return node
    if tag:
        bare.yaml_set_ctag(Tag(suffix=tag))
    return bare


def _digest(tree: CommentedMap) -> str:
    return hashlib.sha256(dump(_bare(tree)).encode()).hexdigest()


def _check_contract(encoder: Any, path: Path) -> None:
    """Refuse what is no encoder; one that is not ours is also tried on half a second of silence."""
    if not isinstance(encoder, nn.Module):
        raise ConfigError(f"encoder '{path}': gives a {type(encoder).__name__}; {_EXPECTED}")
    name = type(encoder).__name__
    for attribute in ("sample_rate", "frame_rate", "dim", "layer_dims", "macs"):
        if not hasattr(encoder, attribute):
            raise ConfigError(f"encoder '{path}': {name} has no {attribute}; expected what lobes.encoders.Encoder has")
    parts = (encoder, getattr(encoder, "encoder", encoder))
    if all(type(part).__module__.startswith("lobes.") for part in parts):
        return
    rate: Any = encoder.sample_rate
    waveform, lengths = torch.zeros(2, rate // 2), torch.tensor([1.0, 0.5])
    try:
        with torch.no_grad():
            output = encoder.eval()(waveform, lengths)
        found = [tuple(x.shape) for x in (output.frames, *output.layers)]
        batch, frames = output.valid.shape
    except Exception as error:  # of code that is not ours: anything
        line = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"encoder '{path}': {name} fails on half a second of silence ({type(error).__name__}: {line}); expected"
            " encoder(waveform (B, S), lengths (B,)) to give frames, valid and layers"
        ) from error
    dims: Any = [encoder.dim, *encoder.layer_dims]  # type: ignore[misc]
    expected = [(batch, frames, dim) for dim in dims]
    if found != expected or not isinstance(output.valid, Tensor) or output.valid.dtype != torch.bool:
        raise ConfigError(
            f"encoder '{path}': {name} gives frames and layers of shapes {found} and valid of {(batch, frames)};"
            f" expected {expected}, and valid of truth values"
        )
