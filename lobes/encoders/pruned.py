"""Hugging Face's models with fewer heads, narrower feed-forwards and fewer convolution channels, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lobes.encoders.huggingface import HuggingFaceEncoder
from lobes.errors import ConfigError

#: Model types of whose attention heads can go: q_proj, k_proj, v_proj and out_proj, and no relative positions.
PRUNABLE = ("hubert", "wav2vec2", "unispeech", "unispeech-sat", "data2vec-audio")


class PrunedEncoder(HuggingFaceEncoder):
    """A `HuggingFaceEncoder` whose layers have sizes of their own, as pruning leaves them (`lobes.distillation.prune`).

    Arguments
    ---------
    source
        As for `HuggingFaceEncoder`: what it was before; its weights are not loaded.
    sizes : mapping
        ``heads`` and ``ffn``, numbers for each block, 0 or more; ``conv``, channels of each convolution.
    **options
        As for `HuggingFaceEncoder`.

    Raises
    ------
    ConfigError
        The model is of a type that is not pruned, or sizes do not fit its depth or exceed what it had.

    Example
    -------
    >>> import torch
    >>> tiny = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...         "intermediate_size": 32, "conv_dim": [8] * 7}
    >>> encoder = PrunedEncoder(tiny, {"heads": [1, 0], "ffn": [5, 32], "conv": [3, 8, 8, 8, 8, 8, 8]})
    >>> encoder(torch.randn(1, 16000), torch.ones(1)).frames.shape
    torch.Size([1, 49, 16])
    """

    def __init__(self, source: Any, sizes: Mapping[str, Sequence[int]], **options: Any) -> None:
        super().__init__(source, **{**options, "untrained": True})
        self.sizes = check_sizes(self, sizes)
        convolutions, blocks = self.model.feature_extractor.conv_layers, self.model.encoder.layers
        for i, channels in enumerate(self.sizes["conv"]):
            keep_channels(convolutions, i, torch.arange(channels))
        for block, heads, width in zip(blocks, self.sizes["heads"], self.sizes["ffn"], strict=True):
            keep_heads(block, torch.arange(heads))
            keep_units(block, torch.arange(width))

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`."""
        return {**super().arguments(), "sizes": {name: list(values) for name, values in self.sizes.items()}}

    def first_blocks(self, n_blocks: int) -> PrunedEncoder:
        """See `FamilyEncoder.first_blocks`."""
        kept = cast(PrunedEncoder, super().first_blocks(n_blocks))
        kept.sizes = {name: v if name == "conv" else v[:n_blocks] for name, v in kept.sizes.items()}
        return kept

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """See `FamilyEncoder.macs`."""
        config, family = self.model.config, self.family
        samples, channels, total = round(seconds * self.sample_rate), 1, 0
        if not int(self.n_frames(torch.tensor(samples))):
            return 0
        for kernel, stride, out in zip(config.conv_kernel, config.conv_stride, self.sizes["conv"], strict=True):
            samples = (samples - kernel) // stride + 1
            total, channels = total + samples * kernel * channels * out, out
        total += samples * channels * self.dim + family.position_macs(samples)  # type: ignore[operator]
        head = self.dim // config.num_attention_heads
        for heads, width in zip(self.sizes["heads"][:n_blocks], self.sizes["ffn"][:n_blocks], strict=True):
            total += 4 * samples * self.dim * heads * head + 2 * samples**2 * heads * head
            total += 2 * samples * self.dim * width
        return total


def check_sizes(encoder: HuggingFaceEncoder, sizes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Sizes as lists of numbers, or an error that names what does not fit."""
    config = encoder.model.config
    if config.model_type not in PRUNABLE:
        raise ConfigError(f"pruning: model_type is '{config.model_type}'; expected one of {', '.join(PRUNABLE)}")
    depth = config.num_hidden_layers
    most = {
        "heads": [config.num_attention_heads] * depth,
        "ffn": [config.intermediate_size] * depth,
        "conv": list(config.conv_dim),
    }
    if sizes.keys() != most.keys():
        raise ConfigError(f"sizes: has {', '.join(sizes)}; expected {', '.join(most)}")
    found = {name: [int(value) for value in sizes[name]] for name in most}
    for name, values in found.items():
        least = 1 if name == "conv" else 0
        fits = len(values) == len(most[name]) and all(least <= v <= m for v, m in zip(values, most[name], strict=True))
        if not fits:
            raise ConfigError(f"sizes: {name} is {values}; expected {len(most[name])} numbers up to {most[name]}")
    if found["conv"][-1] != most["conv"][-1]:
        raise ConfigError("sizes: the last convolution cannot be pruned: a layer norm reads all of its channels")
    return found


def keep_heads(block: nn.Module, heads: Tensor, scale: Tensor | None = None) -> None:
    """Keep some heads of a block's attention, each times its scale; without any, its bias is left."""
    attention: Any = block.attention
    width = attention.head_dim
    rows = (heads[:, None] * width + torch.arange(width)).flatten()
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, _rows(getattr(attention, name), rows))
    attention.out_proj = _columns(attention.out_proj, rows, None if scale is None else scale.repeat_interleave(width))
    if not len(heads):
        attention.forward = _only_bias(attention.out_proj)


def keep_units(block: nn.Module, units: Tensor, scale: Tensor | None = None) -> None:
    """Keep some hidden units of a block's feed-forward, each times its scale."""
    forward: Any = block.feed_forward
    forward.intermediate_dense = _rows(forward.intermediate_dense, units)
    forward.output_dense = _columns(forward.output_dense, units, scale)


def keep_channels(convolutions: Any, index: int, channels: Tensor, scale: Tensor | None = None) -> None:
    """Keep some channels of a convolution, each times its scale, and what the next one reads of them."""
    layer = convolutions[index]
    if len(channels) == layer.conv.out_channels and scale is None:
        return
    layer.conv = _convolution(layer.conv, channels, None)
    norm = getattr(layer, "layer_norm", None)
    if isinstance(norm, nn.GroupNorm):
        layer.layer_norm = _group_norm(norm, channels)
    elif norm is not None:
        raise ConfigError("sizes: convolutions with a layer norm cannot be pruned: it reads all channels at once")
    following = convolutions[index + 1]
    following.conv = _convolution(following.conv, None, channels, scale)


def _rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    kept = nn.Linear(linear.in_features, len(rows), linear.bias is not None, linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        kept.weight.copy_(linear.weight[rows])
        if linear.bias is not None:
            kept.bias.copy_(linear.bias[rows])
    return kept


def _columns(linear: nn.Linear, columns: Tensor, scale: Tensor | None) -> nn.Linear:
    given = linear.bias is not None
    kept = nn.Linear(len(columns), linear.out_features, given, linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        weight = linear.weight[:, columns]
        kept.weight.copy_(weight if scale is None else weight * scale.to(weight))
        if given:
            kept.bias.copy_(linear.bias)
    return kept


def _convolution(conv: nn.Conv1d, out: Tensor | None, into: Tensor | None, scale: Tensor | None = None) -> nn.Conv1d:
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if out is not None:
        weight, bias = weight[out], None if bias is None else bias[out]
    if into is not None:
        weight = weight[:, into] if scale is None else weight[:, into] * scale.to(weight)[:, None]
    n_out, n_in = weight.shape[:2]
    kept = nn.Conv1d(n_in, n_out, conv.kernel_size[0], conv.stride[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        kept.weight.copy_(weight)
        if bias is not None and kept.bias is not None:
            kept.bias.copy_(bias)
    return kept.to(weight.device)


def _group_norm(norm: nn.GroupNorm, channels: Tensor) -> nn.GroupNorm:
    """A group for each channel, as these models have it."""
    kept = nn.GroupNorm(len(channels), len(channels), norm.eps, dtype=norm.weight.dtype, device=norm.weight.device)
    with torch.no_grad():
        kept.weight.copy_(norm.weight[channels])
        kept.bias.copy_(norm.bias[channels])
    return kept


class _only_bias:  # noqa: N801  it stands in for a method
    """What attention without heads gives."""

    def __init__(self, projection: nn.Linear) -> None:
        self.projection = projection

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        bias = self.projection.bias
        return (torch.zeros_like(hidden_states) if bias is None else bias.expand_as(hidden_states)), None
