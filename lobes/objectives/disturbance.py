"""Other voices, rooms and telephones: random changes of log-mel features under which speech stays the same speech."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError
from lobes.objectives.masks import utterance_generator


class Disturbance(nn.Module):
    """Warp the frequency axis, add noise, and cut high bands off, each utterance in its own way.

    An objective that shows its encoder disturbed features and asks for targets of the clean ones makes it tell what is
    said from who says it and how it was recorded (as WavLM does with noise, Chen et al. 2022, and ContentVec with
    voices, Qian et al. 2022). The warp is vocal tract length perturbation (Jaitly & Hinton 2013), linear on the mel
    axis.

    Arguments
    ---------
    warp : float
        Bands are read at 1 ± warp times their place, uniformly drawn.
    noise : float
        Probability of stationary noise: its spectrum has a random slope and shape, its power is that of a periodogram.
    snr : tuple of float
        Range of the ratio of mean powers over all bands, speech to noise, in dB.
    cut : float
        Probability that all bands above one of the upper 40 % are as quiet as the quietest moment, as after a
        telephone or a low sample rate.
    seed : int
        Of all draws, with the utterance's id and the step.
    """

    def __init__(
        self,
        warp: float = 0.15,
        noise: float = 0.7,
        snr: tuple[float, float] = (0.0, 25.0),
        cut: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (0 <= warp < 1 and 0 <= noise <= 1 and 0 <= cut <= 1 and snr[0] <= snr[1]):
            raise ConfigError(
                f"Disturbance: warp {warp}, noise {noise}, cut {cut}, snr {tuple(snr)}; expected warp in [0, 1), "
                "probabilities in [0, 1] and a rising range in dB"
            )
        self.warp, self.noise, self.snr, self.cut, self.seed = warp, noise, (snr[0], snr[1]), cut, seed

    def forward(self, log_mel: Tensor, valid: Tensor, ids: list[str], step: int) -> Tensor:
        """Disturb a batch.

        Arguments
        ---------
        log_mel : Tensor
            (B, T, F), natural logarithms of power (`LogMel.log_mel`).
        valid : Tensor
            (B, T), bool; what is not valid has no influence and no meaning.
        ids : list[str]
            B utterance ids.
        step : int
            Training step.

        Returns
        -------
        Tensor
            (B, T, F), a new tensor.
        """
        disturbed = log_mel.clone()
        for row, (utterance, n_frames) in enumerate(zip(ids, valid.sum(1).tolist(), strict=True)):
            if n_frames:
                generator = utterance_generator(self.seed, f"{utterance}\0disturbance", step)
                disturbed[row, :n_frames] = self._disturb(log_mel[row, :n_frames], generator)
        return disturbed

    def _disturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(T, F) of one utterance; the numbers drawn are the same whatever is switched on."""
        bands = x.shape[1]
        factor, noisy, ratio, slope, muffled, edge = torch.rand(6, generator=generator).tolist()
        shape = 0.5 * torch.randn(bands, generator=generator)
        if self.warp:
            x = warp_bands(x, 1 + self.warp * (2 * factor - 1))
        if noisy < self.noise:
            snr = self.snr[0] + ratio * (self.snr[1] - self.snr[0])
            level = torch.logsumexp(x.flatten(), 0) - math.log(x.numel()) - snr * math.log(10) / 10
            tilt = (4 * slope - 2) * torch.linspace(-1, 1, bands)
            # The power of a noise's Fourier coefficient is exponentially distributed.
            power = torch.empty(x.shape).exponential_(generator=generator).clamp_min(1e-4)
            x = torch.logaddexp(x, level + (tilt + shape + power.log()).to(x))
        if muffled < self.cut:
            x = x.clone()
            first = round(bands * (0.6 + 0.4 * edge))
            x[:, first:] = x.amin()
        return x


def warp_bands(x: Tensor, factor: float) -> Tensor:
    """Read band i at place ``factor`` · i, interpolated linearly; beyond the last band, its value.

    Example
    -------
    >>> warp_bands(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), 1.5)
    tensor([[0.0000, 1.5000, 3.0000, 3.0000]])
    """
    last = x.shape[-1] - 1
    places = (torch.arange(last + 1, device=x.device, dtype=x.dtype) * factor).clamp(max=last)
    lower = places.floor().long()
    share = places - lower
    return torch.lerp(x[..., lower], x[..., (lower + 1).clamp(max=last)], share)
