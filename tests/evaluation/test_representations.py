"""CKA: the sums give what the Gram matrices give, in any order and number of parts."""

from __future__ import annotations

import math

import pytest
import torch

from lobes.errors import DataError
from lobes.evaluation.representations import LinearCKA, effective_rank, linear_cka


def frames(n: int, dim: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + offset


def slow_hsic(x: torch.Tensor, y: torch.Tensor) -> float:
    """Song et al. (2012), eq. 5, on Gram matrices with empty diagonals."""
    k, m, n = (x @ x.T).fill_diagonal_(0), (y @ y.T).fill_diagonal_(0), len(x)
    one = torch.ones(n, dtype=x.dtype)
    total = torch.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_sums_equal_gram_matrices(offset):
    x = frames(40, 6, 0, offset)
    y = torch.tanh(x @ frames(6, 9, 1)) + 0.3 * frames(40, 9, 2)
    expected = slow_hsic(x, y) / math.sqrt(slow_hsic(x, x) * slow_hsic(y, y))
    parts = LinearCKA()
    for start, stop, group in ((0, 7, "a"), (7, 8, "b"), (8, 40, "a")):
        parts.update(x[start:stop], y[start:stop], group)
    assert parts.value() == pytest.approx(expected, abs=1e-9) and linear_cka(x, y) == pytest.approx(expected, abs=1e-9)


def test_what_it_does_not_see_and_what_it_does():
    x = frames(200, 8, 0)
    rotation = torch.linalg.qr(frames(8, 8, 1))[0]
    assert linear_cka(x, 5 * x @ rotation - 3) == pytest.approx(1, abs=1e-9)
    assert linear_cka(x, x + frames(200, 8, 2)) < 0.9


def test_few_frames_of_many_dimensions_that_have_nothing_in_common_give_zero_on_average():
    """The plug-in estimate is near 1 here."""
    found = [linear_cka(frames(20, 64, seed), frames(20, 64, 1000 + seed)) for seed in range(100)]
    assert abs(sum(found) / len(found)) < 0.02


def test_the_interval_is_over_groups():
    cka = LinearCKA()
    for group in range(6):
        x = frames(300, 5, group)
        cka.update(x, x + (0.2 + 0.2 * group) * frames(300, 5, 100 + group), str(group))
    found = cka.interval()
    assert found.low < found.value < found.high < 1 and (found.n_groups, found.n_items) == (6, 1800)
    one = LinearCKA()
    one.update(frames(9, 2, 0), frames(9, 2, 1))
    with pytest.raises(DataError, match="1 group, expected two"):
        one.interval()


def test_bad_frames_are_named():
    with pytest.raises(DataError, match=r"\(3, 2\) and \(4, 2\)"):
        linear_cka(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(DataError, match="group 'S10' is not finite"):
        LinearCKA().update(torch.full((5, 2), math.nan), torch.zeros(5, 2), "S10")
    with pytest.raises(DataError, match="3 frames, expected four"):
        linear_cka(torch.zeros(3, 2), torch.zeros(3, 2))
    assert math.isnan(linear_cka(torch.zeros(9, 2), frames(9, 2, 0))), "constant frames"


def test_effective_rank_of_a_product_is_that_of_its_inner_width():
    assert effective_rank(frames(200, 1, 0) @ frames(1, 8, 1)) < 1.01 and effective_rank(frames(200, 8, 2)) > 7
