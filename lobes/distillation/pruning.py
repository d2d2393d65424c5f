"""Joint distillation and structured pruning to a given sparsity (DPHuBERT; Peng et al., Interspeech 2023).

Heads, hidden units of the feed-forwards and channels of the convolutions get gates that are trained to be open or shut,
while the student is distilled from what it was; `prune` then leaves out, for good, what is shut.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lobes.distillation.objectives import DistillationObjective
from lobes.distillation.students import check_foreign
from lobes.encoders.pruned import PrunedEncoder, check_sizes, keep_channels, keep_heads, keep_units
from lobes.errors import ConfigError
from lobes.objectives import Objective, ObjectiveOutput

#: Of the stretched concrete distribution (Louizos, Welling & Kingma, ICLR 2018).
BETA, LOW, HIGH = 2 / 3, -0.1, 1.1


class HardConcrete(nn.Module):
    """Gates that are 0, 1, or between, drawn anew in each training step; out of training, what is likely shut is.

    Parameters
    ----------
    n_gates : int
    open : float
        Probability, to begin with, that a gate is not 0.
    """

    shift: Tensor

    def __init__(self, n_gates: int, open: float = 0.99) -> None:
        super().__init__()
        start = math.log(open / (1 - open)) + BETA * math.log(-LOW / HIGH)
        self.log_alpha = nn.Parameter(torch.full((n_gates,), start) + 1e-2 * torch.randn(n_gates))
        self.register_buffer("shift", torch.zeros(()))  # of log α, where it is decided which are shut: `Gates.settle`

    def probability(self) -> Tensor:
        """That each gate is not 0, (n,)."""
        return torch.sigmoid(self.log_alpha - BETA * math.log(-LOW / HIGH))

    def forward(self) -> Tensor:
        """The gates, (n,), 0 to 1."""
        if self.training:
            u = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid((u.log() - (1 - u).log() + self.log_alpha) / BETA)
            return (soft * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
        return self.settled()

    @torch.no_grad()
    def settled(self) -> Tensor:
        """Gates out of training: as many are shut as are expected to be, the least likely; others at σ(log α / β).

        Not stretched, as in training, or more would be shut than are expected to be.
        """
        likely = torch.sigmoid(self.log_alpha + self.shift - BETA * math.log(-LOW / HIGH))
        shut = len(self.log_alpha) - int(likely.sum().round())
        gates = torch.sigmoid(self.log_alpha / BETA)
        if shut:
            gates[self.log_alpha.topk(shut, largest=False).indices] = 0.0
        return gates


class Gates(nn.Module):
    """The gates of one encoder, at work wherever it runs.

    Parameters
    ----------
    encoder : HuggingFaceEncoder
        HuBERT, wav2vec 2.0 or their like; changed in place by hooks, which `remove` takes out.
    convolutions : bool
        Whether channels of the convolutions are pruned too: all but the last, whose channels a layer norm reads.

    Raises
    ------
    ConfigError
        The model is of a type that cannot be pruned.
    """

    def __init__(self, encoder: Any, convolutions: bool = True) -> None:
        super().__init__()
        check_foreign(encoder, "Gates")
        config = encoder.model.config
        depth = config.num_hidden_layers
        whole = {"heads": [config.num_attention_heads] * depth, "ffn": [config.intermediate_size] * depth}
        check_sizes(encoder, {**whole, "conv": list(config.conv_dim)})
        normed = [hasattr(layer, "layer_norm") for layer in encoder.model.feature_extractor.conv_layers]
        if convolutions and getattr(config, "feat_extract_norm", "group") != "group" and any(normed):
            raise ConfigError("Gates: convolutions have layer norms and cannot be pruned; pass convolutions=False")
        self.heads = nn.ModuleList(HardConcrete(n) for n in whole["heads"])
        self.ffn = nn.ModuleList(HardConcrete(n) for n in whole["ffn"])
        self.conv = nn.ModuleList(HardConcrete(n) for n in config.conv_dim[:-1]) if convolutions else nn.ModuleList()
        self._dim, self._head_dim = config.hidden_size, config.hidden_size // config.num_attention_heads
        self._kernels, self._channels = list(config.conv_kernel), list(config.conv_dim)
        self._conv_bias = bool(config.conv_bias)
        self.total = sum(p.numel() for p in encoder.parameters())
        self._fixed = self.total - self._prunable([torch.ones(len(g.log_alpha)) for g in self._all()])
        self._hooks: list[Any] = []
        for layer, gate in zip(encoder.model.feature_extractor.conv_layers, self.conv, strict=False):
            self._hooks.append(layer.register_forward_hook(_scaled_channels(gate)))
        for block, heads, units in zip(encoder.model.encoder.layers, self.heads, self.ffn, strict=True):
            scaled = _scaled_input(heads, self._head_dim)
            self._hooks.append(block.attention.out_proj.register_forward_pre_hook(scaled))
            self._hooks.append(block.feed_forward.output_dense.register_forward_pre_hook(_scaled_input(units, 1)))

    def sparsity(self) -> Tensor:
        """Expected share of the encoder's parameters that will be gone, ()."""
        return 1.0 - (self._fixed + self._prunable([gate.probability() for gate in self._all()])) / self.total

    @torch.no_grad()
    def settle(self, sparsity: float) -> float:
        """Shut a few more gates than are expected to be, or fewer, so that what is left has the size asked for.

        Where training leaves many gates undecided, their rounding adds up. All of them are made likelier, or less
        likely, by one number; `prune` and the gates themselves go by it from then on.

        Parameters
        ----------
        sparsity : float
            Share of the encoder's parameters that are to be gone.

        Returns
        -------
        float
            The share that will be gone; next to what was asked for, but for a head or a unit.
        """
        low, high = -50.0, 50.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self._gone(middle) < sparsity else (middle, high)
        return self._gone(min((low, high), key=lambda end: abs(self._gone(end) - sparsity)))

    def _gone(self, shift: float) -> float:
        """Share of the parameters that are gone where all gates are shifted."""
        for gate in self._all():
            gate.shift.fill_(shift)
        open = [(gate.settled() > 0).float() for gate in self._all()]
        return float(1.0 - (self._fixed + self._prunable(open)) / self.total)

    def remove(self) -> None:
        """Take the gates off the encoder."""
        for hook in self._hooks:
            hook.remove()

    def _all(self) -> list[Any]:
        return [*self.heads, *self.ffn, *self.conv]

    def _prunable(self, open: list[Tensor]) -> Tensor:
        """Parameters that gates decide on, of so many open ones."""
        depth = len(self.heads)
        heads, units, channels = open[:depth], open[depth : 2 * depth], open[2 * depth :]
        per_head = 4 * self._dim * self._head_dim + 3 * self._head_dim
        found = sum(per_head * gate.sum() for gate in heads)
        found = found + sum((2 * self._dim + 1) * gate.sum() for gate in units)
        if channels:
            before: Any = 1.0
            for i, (kernel, width) in enumerate(zip(self._kernels, self._channels, strict=True)):
                now = channels[i].sum() if i < len(channels) else float(width)
                found = found + before * now * kernel + (now if self._conv_bias else 0.0)
                found = found + (2 * now if i == 0 else 0.0)  # the group norm of the first
                before = now
        return torch.as_tensor(found)


class DistilAndPrune(Objective):
    """Distil a model from what it was while it is pruned: `loss + λ₁ (s - t) + λ₂ (s - t)²`, as DPHuBERT does.

    The multipliers rise as long as the sparsity s misses its target t, which itself rises from 0; all of it is trained
    by one optimizer, in which the multipliers' gradients have the other sign.

    Parameters
    ----------
    encoder : HuggingFaceEncoder
        The student: a copy of the teacher.
    distillation : DistillationObjective
        Such as `Distillation` with `l1_cosine(log_sigmoid=False)`.
    sparsity : float
        t: share of the encoder's parameters that are to go.
    warmup : int
        Steps in which t rises.
    convolutions : bool
        As for `Gates`.

    Raises
    ------
    ConfigError
        The target is not between 0 and 1, or the model cannot be pruned.
    """

    def __init__(
        self,
        encoder: Any,
        distillation: DistillationObjective,
        sparsity: float = 0.75,
        warmup: int = 5000,
        convolutions: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < sparsity < 1:
            raise ConfigError(f"DistilAndPrune: sparsity is {sparsity}; expected a share above 0 and below 1")
        self.distillation, self.target, self.warmup = distillation, sparsity, warmup
        self.gates = Gates(encoder, convolutions)
        self.multipliers = nn.Parameter(torch.zeros(2))
        self.multipliers.register_hook(torch.neg)

    def prepare(self, dataset: Any) -> None:
        """As the distillation's."""
        self.distillation.prepare(dataset)

    def measure_against(self, dataset: Any) -> None:
        """As the distillation's."""
        self.distillation.measure_against(dataset)

    def forward(self, encoder: nn.Module, batch: Any) -> ObjectiveOutput:
        """See `Objective.forward`."""
        output = self.distillation(encoder, batch)
        now = min(1.0, (getattr(batch, "step", self.warmup) + 1) / max(self.warmup, 1)) * self.target
        off = self.gates.sparsity() - now
        penalty = self.multipliers[0] * off + self.multipliers[1] * off.square()
        loss = output.loss + penalty if self.training else output.loss
        stats = {**output.stats, "sparsity": self.gates.sparsity().detach(), "distance": output.loss.detach()}
        return output._replace(loss=loss, stats=stats)

    def groups(self, encoder: nn.Module, gate_lr: float = 0.02) -> list[dict[str, Any]]:
        """Groups for an optimizer: gates and multipliers learn faster, and are not decayed."""
        own = {id(p) for p in (*self.gates.parameters(), self.multipliers)}
        rest = [p for p in (*encoder.parameters(), *self.parameters()) if p.requires_grad and id(p) not in own]
        return [
            {"params": rest},
            {"params": list(self.gates.parameters()), "lr": gate_lr, "weight_decay": 0.0},
            {"params": [self.multipliers], "lr": gate_lr, "weight_decay": 0.0},
        ]


def prune(encoder: Any, gates: Gates) -> PrunedEncoder:
    """Leave out what is shut: a smaller model, which gives what the gated one gives out of training.

    Parameters
    ----------
    encoder : HuggingFaceEncoder
        That the gates are of; unchanged.
    gates : Gates
        Trained.

    Returns
    -------
    PrunedEncoder
        In evaluation mode; `lobes.export.save_encoder(pruned, folder, pruned.hparams_text())` saves it.
    """
    config = encoder.model.config
    settled = {name: [gate.settled() for gate in getattr(gates, name)] for name in ("heads", "ffn", "conv")}
    kept = {name: [gate.nonzero().squeeze(1) for gate in found] for name, found in settled.items()}
    conv = [max(1, len(channels)) for channels in kept["conv"]] or list(config.conv_dim[:-1])
    sizes: Mapping[str, list[int]] = {
        "heads": [len(heads) for heads in kept["heads"]],
        "ffn": [len(units) for units in kept["ffn"]],
        "conv": [*conv, config.conv_dim[-1]],
    }
    arguments = encoder.arguments()
    pruned = PrunedEncoder(arguments.pop("source"), sizes, **arguments)
    model = copy.deepcopy(encoder.model)
    for module in model.modules():  # the copy has the gates' hooks
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for i, (channels, gate) in enumerate(zip(kept["conv"], settled["conv"], strict=True)):
        channels = channels if len(channels) else gate.new_zeros(1).long()
        keep_channels(model.feature_extractor.conv_layers, i, channels, gate[channels])
    for i, block in enumerate(model.encoder.layers):
        keep_heads(block, kept["heads"][i], settled["heads"][i][kept["heads"][i]])
        keep_units(block, kept["ffn"][i], settled["ffn"][i][kept["ffn"][i]])
    pruned.model.load_state_dict(model.state_dict())
    return pruned.eval()


class _scaled_input:  # noqa: N801  it stands in for a function
    def __init__(self, gate: nn.Module, width: int) -> None:
        self.gate, self.width = gate, width

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scale = self.gate().repeat_interleave(self.width)
        return (inputs[0] * scale.to(inputs[0]), *inputs[1:])


class _scaled_channels:  # noqa: N801
    def __init__(self, gate: nn.Module) -> None:
        self.gate = gate

    def __call__(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output * self.gate().to(output)[:, None]
