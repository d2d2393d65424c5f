"""How much of an encoder is trained."""

from __future__ import annotations

from torch import nn

from lobes.adapters.base import active_adapter, adaptations
from lobes.adapters.sites import adapter_tensors


def trainable_share(encoder: nn.Module) -> float:
    """Parameters that train, as a share of the pretrained encoder's number of parameters.

    Adapters are not counted in the latter, so that shares of different methods have one denominator; a head beside the
    encoder is in neither.

    Example
    -------
    >>> trainable_share(nn.Linear(3, 1))
    1.0
    """
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    return trained / max(n_pretrained(encoder), 1)


def n_pretrained(encoder: nn.Module) -> int:
    """Parameters of the encoder without its adapters."""
    return sum(p.numel() for p in encoder.parameters()) - sum(n_adapter(encoder, name) for name in adaptations(encoder))


def n_adapter(encoder: nn.Module, name: str) -> int:
    """Parameters of one adapter."""
    tensors = adapter_tensors(encoder, name).values()
    return sum(t.numel() for t in tensors if isinstance(t, nn.Parameter))


def summary(encoder: nn.Module) -> str:
    """One line for each adapter: its method and options, its parameters, and whether it is active.

    Example
    -------
    >>> from lobes.adapters import BitFit
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> print(summary(BitFit().apply(encoder)))
    default (active): BitFit(), 720 of 18,288 parameters, 3.937 %
    """
    total = n_pretrained(encoder)
    lines = []
    for name, adaptation in adaptations(encoder).items():
        count = n_adapter(encoder, name)
        state = " (active)" if name == active_adapter(encoder) else ""
        share = 100 * count / max(total, 1)
        lines.append(f"{name}{state}: {adaptation}, {count:,} of {total:,} parameters, {share:.3f} %")
    return "\n".join(lines) or f"no adapters, {total:,} parameters"
