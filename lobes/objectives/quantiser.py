"""Random-projection quantiser: the fixed targets of BEST-RQ."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError, DataError
from lobes.objectives.masks import utterance_generator

#: Of the largest eigenvalue: smaller components are not blown up to unit deviation.
_EIGENVALUE_FLOOR = 0.01


class RandomProjectionQuantiser(nn.Module):
    """The nearest code, on the unit sphere, to a random projection (Chiu et al. 2022, "BEST-RQ", eq. 1).

    On the sphere the nearest code is the one of the largest product, and the projection's own length changes nothing:
    one matrix product per codebook, with no (frames, codes, dimensions) tensor. Nothing here is trained: the codes are
    a function of the seed and, with ``whiten``, of the statistics that `fit` takes of the data.

    Neighbouring mel bands and frames are so correlated that most of what a random projection sees is loudness: few
    codes are used, and some of them for every second frame. With ``whiten`` it sees the principal components instead,
    each of unit deviation, and the codes spread.

    Arguments
    ---------
    input_dim : int
        Width of the vectors to quantise.
    codebook_size : int
        Codes V per codebook.
    codebook_dim : int
        Width of the codes.
    n_codebooks : int
        Independent codebooks Q, each with its projection.
    seed : int
        Of the projections and codes.
    whiten : int, optional
        How many principal components are projected, at most ``input_dim``; None projects the vectors as they are, as
        in the paper.

    Example
    -------
    >>> RandomProjectionQuantiser(320, 1024, n_codebooks=2)(torch.randn(7, 320)).shape
    torch.Size([7, 2])
    """

    projection: Tensor
    codes: Tensor
    mean: Tensor
    components: Tensor
    fitted: Tensor

    def __init__(
        self,
        input_dim: int,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        n_codebooks: int = 1,
        seed: int = 0,
        whiten: int | None = None,
    ) -> None:
        super().__init__()
        if whiten is not None and not 1 <= whiten <= input_dim:
            raise ConfigError(f"whiten: {whiten}, expected 1 to {input_dim}, the width of the features, or null")
        self.whiten = whiten
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("components", torch.zeros(input_dim, whiten or 0))
        self.register_buffer("fitted", torch.tensor(whiten is None))
        projected = whiten or input_dim
        self.codebook_size, self.n_codebooks = codebook_size, n_codebooks
        generator = utterance_generator(seed, "random-projection quantiser", 0)
        projection = torch.empty(n_codebooks, projected, codebook_dim)
        bound = (6.0 / (projected + codebook_dim)) ** 0.5  # Xavier, as in the paper
        projection.uniform_(-bound, bound, generator=generator)
        codes = torch.randn(n_codebooks, codebook_size, codebook_dim, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codes", F.normalize(codes, dim=-1))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and principal components of the vectors; nothing to do without ``whiten``.

        Arguments
        ---------
        batches : iterable of Tensor
            Each (N, input_dim), read once.

        Raises
        ------
        DataError
            If there are fewer than two vectors in all.
        """
        if self.whiten is None:
            return
        width, count = len(self.mean), 0
        total, outer = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for batch in batches:
            x = batch.cpu().double()
            count, total, outer = count + len(x), total + x.sum(0), outer + x.T @ x
        if count < 2:
            raise DataError(f"whiten: {count} frames of audio could be read, expected more; see what was skipped")
        mean = total / count
        values, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
        values, vectors = values.flip(0)[: self.whiten], vectors.flip(1)[:, : self.whiten]
        # An eigenvector's sign is arbitrary: make its largest entry positive.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        scale = (values.clamp_min(0) + _EIGENVALUE_FLOOR * values[0]).clamp_min(1e-12).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(vectors / scale)
        self.fitted.fill_(True)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Codes of vectors: (N, input_dim) -> (N, Q), int64.

        Raises
        ------
        ConfigError
            If `fit` was not called before and should have been.
        """
        if self.whiten is not None and not self.fitted:
            raise ConfigError("whiten: the quantiser has no statistics yet; call the objective's fit(), or set null")
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.projection.dtype)
            if self.whiten is not None:
                x = (x - self.mean) @ self.components
            books = zip(self.projection, self.codes, strict=True)
            return torch.stack([(x @ projection @ codes.T).argmax(-1) for projection, codes in books], dim=-1)
