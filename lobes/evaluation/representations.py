"""How alike two representations of the same frames are, and how many directions a set of vectors fills.

Plain linear algebra on tensors; nothing here knows a model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lobes.errors import DataError
from lobes.evaluation.statistics import Interval, jackknife_interval


def effective_rank(matrix: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli, EUSIPCO 2007, eq. 3-5).

    Of embeddings this is RankMe (Garrido et al. 2023, eq. 1): between 1 (all on one line: collapsed) and min(N, D).

    Parameters
    ----------
    matrix : Tensor
        (N, D).

    Returns
    -------
    Tensor
        (), 0 where there are no rows.

    Example
    -------
    >>> round(effective_rank(torch.eye(4)).item(), 3)
    4.0
    """
    if matrix.shape[0] == 0:
        return matrix.new_zeros(())
    values = torch.linalg.svdvals(matrix.double())
    share = values / values.sum().clamp_min(1e-12) + 1e-12
    return torch.exp(-(share * share.log()).sum()).to(matrix.dtype)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA of two sets of frames (N, D1) and (N, D2): 1 if one is a rotation of the other.

    Example
    -------
    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    >>> round(linear_cka(x, 3 * x @ rotation + 1), 3)
    1.0
    """
    cka = LinearCKA()
    cka.update(x, y)
    return cka.value()


@dataclass
class _Sums:
    """Sums over frames, from which the three HSICs follow: as many numbers as 3 D², whatever the number of frames."""

    n: Tensor  # frames
    x: Tensor  # sum of x
    y: Tensor
    xx: Tensor  # sum of outer products
    xy: Tensor
    yy: Tensor
    tx: Tensor  # sum of squared norms
    ty: Tensor
    pxx: Tensor  # sum of products of squared norms
    pxy: Tensor
    pyy: Tensor
    vxx: Tensor  # sum of x times its squared norm
    vxy: Tensor  # sum of x times y's squared norm
    vyx: Tensor
    vyy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Sums:
        a, b = x.square().sum(1), y.square().sum(1)
        n = torch.tensor(float(len(x)), dtype=x.dtype)
        moments = (x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.T @ y)
        return cls(n, *moments, a.sum(), b.sum(), a @ a, a @ b, b @ b, a @ x, b @ x, a @ y, b @ y)

    def plus(self, other: _Sums, sign: float = 1.0) -> _Sums:
        return _Sums(*(getattr(self, f.name) + sign * getattr(other, f.name) for f in fields(self)))

    def cka(self) -> float:
        xy = self._hsic(self.xy, self.x, self.y, self.tx, self.ty, self.pxy, self.vxy, self.vyx)
        xx = self._hsic(self.xx, self.x, self.x, self.tx, self.tx, self.pxx, self.vxx, self.vxx)
        yy = self._hsic(self.yy, self.y, self.y, self.ty, self.ty, self.pyy, self.vyy, self.vyy)
        return float(xy / (xx * yy).sqrt()) if xx > 0 and yy > 0 else float("nan")

    def _hsic(self, c: Tensor, s: Tensor, r: Tensor, ts: Tensor, tr: Tensor, p: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """The unbiased HSIC of Song et al. (JMLR 2012, eq. 5) times n(n-3), with both Gram matrices written out."""
        n = self.n
        trace = c.square().sum() - p
        ones = (s @ s - ts) * (r @ r - tr) / ((n - 1) * (n - 2))
        between = s @ c @ r - s @ v - r @ w + p
        return trace + ones - 2 * between / (n - 2)


class LinearCKA:
    """Linear centred kernel alignment, frame by frame in constant memory, with an interval over groups.

    Kornblith et al. (ICML 2019, eq. 4) with linear kernels; debiased, with the unbiased HSIC of Song et al. (2012) in
    place of the plug-in one, which is too near to 1 where frames are few beside dimensions (Nguyen et al., ICLR 2021).
    It is 1 if one set is a rotation, scaling and shift of the other, and 0 on average if they have nothing in common.

    Example
    -------
    >>> cka = LinearCKA()
    >>> for recorder in "abc":
    ...     frames = torch.randn(50, 4, generator=torch.Generator().manual_seed(ord(recorder)))
    ...     cka.update(frames, 2 * frames, group=recorder)
    >>> cka.interval().n_groups, round(cka.value(), 3)
    (3, 1.0)
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._shift: tuple[Tensor, Tensor] | None = None

    def update(self, x: Tensor, y: Tensor, group: str = "") -> None:
        """Add frames.

        Parameters
        ----------
        x, y : Tensor
            (N, D1) and (N, D2): the same N frames in both representations.
        group : str
            Speaker, recorder or recording that they are from.

        Raises
        ------
        DataError
            If the numbers of frames differ, or a value is not finite.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise DataError(f"CKA: frames are {tuple(x.shape)} and {tuple(y.shape)}, expected (N, D) with one N")
        if len(x) == 0:
            return
        if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise DataError(f"CKA: a frame of group '{group}' is not finite; leave it out, or mend the model")
        x, y = x.detach().double().cpu(), y.detach().double().cpu()
        if self._shift is None:  # any constant will do; one near the mean keeps digits
            self._shift = (x.mean(0), y.mean(0))
        found = _Sums.of(x - self._shift[0], y - self._shift[1])
        self._sums[group] = self._sums[group].plus(found) if group in self._sums else found

    @property
    def n_frames(self) -> int:
        """Frames so far."""
        return round(sum(float(sums.n) for sums in self._sums.values()))

    def value(self) -> float:
        """CKA of all frames; not a number where one of the representations is constant."""
        return self._total().cka()

    def interval(self, level: float = 0.95) -> Interval:
        """CKA with its interval over groups, from leaving each out once."""
        total, n_groups = self._total(), len(self._sums)
        if n_groups < 2:
            raise DataError(f"CKA: {n_groups} group, expected two or more for an interval; pass group to update")
        left_out = [total.plus(sums, -1.0).cka() for sums in self._sums.values()]
        low, high = jackknife_interval(total.cka(), left_out, level, bounds=(0.0, 1.0))
        return Interval(total.cka(), low, high, level, self.n_frames, n_groups, "t")

    def _total(self) -> _Sums:
        if self.n_frames < 4:
            raise DataError(f"CKA: {self.n_frames} frames, expected four or more")
        total, *others = self._sums.values()
        for sums in others:
            total = total.plus(sums)
        return total
