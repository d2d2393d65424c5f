"""ConvNeXt frame by frame; also the depthwise convolution that other mixers share."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def slow_convolution(convolution, x, spans):
    """Frame t reads the frames around it, and zeros for what is outside of the utterance or of what t may see."""
    weight, bias = convolution.conv.weight[:, 0, :, 0], convolution.conv.bias
    centre = convolution.kernel - 1 if convolution.causal else convolution.kernel // 2
    y = []
    for t, (_, end) in enumerate(spans):
        taps = [(tap, t + tap - centre) for tap in range(convolution.kernel)]
        y.append(bias + sum(weight[:, tap] * x[s] for tap, s in taps if 0 <= s < end))
    return torch.stack(y)


def slow_convnext(mixer, x, spans, chunks=None):
    convolved = slow_convolution(mixer.convolution, x, spans)
    hidden = [F.gelu(mixer.expand(mixer.norm(frame))) for frame in convolved]
    y = []
    for frame, (_, end) in zip(hidden, spans, strict=True):
        if mixer.version == 1:
            y.append(mixer.scale * mixer.project(frame))
            continue
        norms = sum(h**2 for h in hidden[:end]) ** 0.5
        ratio = norms / (sum(norms) / len(norms) + 1e-6)
        y.append(mixer.project(mixer.response.weight * (frame * ratio) + mixer.response.bias + frame))
    return torch.stack(y)


def trained(mixer):
    """The same with every parameter away from its first value, at which a part may be the identity."""
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer
