"""Luna: attention to a fixed number of memory vectors, which attend to the utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import SoftmaxSums, cut, exact, running_softmax, softmax_sums

BLOCK = 16  # frames of a block in the causal form


class Luna(TokenMixer):
    """Nested attention (Ma et al. 2021, "Luna", section 3.1): P' = Attn(P, X, X) packs, Y = Attn(X, P', P') unpacks.

    P are p learned vectors. The paper hands them from layer to layer; a `TokenMixer` is given x alone, so here each
    layer owns its P and drops P' after use. Being constants, P, its query map and the key map of X act as their product
    alone, and that is what is learned: ``pack``, H queries of width D for each of the p vectors. It is the same
    function (of p <= D/H) without projecting the keys. Cost grows with T p. There are no positions in it: give the
    encoder a convolution.

    In chunks P' is packed from what a frame sees, as a softmax over time with running sums: a stream keeps p D numbers
    and two for each head and vector. The causal form is that of chunks of one frame; the paper's (section 3.3) has elu
    or softplus in place of the packing softmax, which running sums make unnecessary. It works in blocks of frames and
    never writes down the P' of each frame.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads H; a divisor of D.
    memory : int
        Vectors p of the memory.
    causal : bool
        See the past only.

    Example
    -------
    >>> mixer = Luna(8, num_heads=2, memory=4)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, num_heads: int = 4, memory: int = 16, causal: bool = False) -> None:
        super().__init__(dim)
        self._check_heads(num_heads)
        if memory < 1:
            raise ConfigError(f"Luna: memory is {memory}; expected a positive number of vectors")
        self.num_heads, self.memory, self.causal = num_heads, memory, causal
        # The running softmax pairs chunks, whose number torch.export pins: the step is exported instead.
        self.exportable = not causal
        # Biases of keys cancel in the softmax, those of values are as good in the output.
        self.pack = nn.Linear(dim, num_heads * memory, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim)
        self.memory_key = nn.Linear(dim, dim, bias=False)
        self.memory_value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix each frame with the memory of what it sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        return self._mix(x, valid, chunks.size if chunks else None, self.init_state(len(x)))[0]

    def init_state(self, batch: int, left: int | None = None) -> SoftmaxSums:
        """Empty memories for ``batch`` streams, values (B, H, p, D/H); see `TokenMixer.init_state`."""
        weight = self.out.weight
        shape = (batch, self.num_heads, self.memory, self.dim // self.num_heads)
        return SoftmaxSums.none(weight.new_zeros(shape, dtype=exact(weight.dtype)))

    def step(self, x: Tensor, valid: Tensor, state: SoftmaxSums) -> tuple[Tensor, SoftmaxSums]:
        """Pack a chunk (B, t, D) into the memory and mix with it; see `TokenMixer.step`."""
        return self._mix(x, valid, None, state)

    def macs(self, n_frames: int) -> int:
        """3 T D² + 3 T H p D, and 2 p D² for the memory; more in the causal form, where each frame has its own."""
        projections = n_frames * self.dim * (3 * self.dim + self.num_heads * self.memory)
        packing = self.memory * self.dim
        if not self.causal:
            return projections + 3 * n_frames * packing + 2 * self.memory * self.dim**2
        block = min(BLOCK, max(n_frames, 1))
        filled = -(-n_frames // block) * block
        reading = self.dim**2 + self.num_heads * (packing + block * self.dim + self.num_heads * block * self.memory)
        return projections + filled * (packing + 2 * reading)

    def state_floats(self) -> int:
        """p D sums of values, and the weight and maximum of each head and memory vector."""
        return self.memory * (self.dim + 2 * self.num_heads)

    def _mix(self, x: Tensor, valid: Tensor, size: int | None, state: SoftmaxSums) -> tuple[Tensor, SoftmaxSums]:
        """In chunks of ``size`` frames (None for one chunk of all), after what the state has heard."""
        n_frames = x.shape[1]
        if not n_frames:
            return x, state
        x = x.masked_fill(~valid[..., None], 0.0)
        scores = self.pack(x).to(exact(x.dtype)) * (self.dim // self.num_heads) ** -0.5
        scores = scores.masked_fill(~valid[..., None], -torch.inf)
        if self.causal:
            size = min(BLOCK, n_frames)
        scores = cut(scores, size, -torch.inf).unflatten(-1, (self.num_heads, self.memory))
        value, query = (cut(part, size).unflatten(-1, (self.num_heads, -1)) for part in (self.value(x), self.query(x)))
        value = value.to(scores.dtype)
        sums = running_softmax(softmax_sums(scores, value), state)
        if self.causal:
            mixed = self._unpack_each(query, scores, value, sums.at(slice(0, -1)))
        else:
            mixed = self._unpack(query, sums.at(slice(1, None)).mean().to(x.dtype))
        y = self.out(mixed.flatten(3).flatten(1, 2)[:, :n_frames]).masked_fill(~valid[..., None], 0.0)
        return y, sums.last()

    def _unpack(self, query: Tensor, packed: Tensor) -> Tensor:
        """Read the memory (B, n, H, p, d) of each chunk, with queries (B, n, s, H, d)."""
        packed = packed.transpose(2, 3).flatten(3)
        key, value = (part(packed).unflatten(-1, (self.num_heads, -1)) for part in (self.memory_key, self.memory_value))
        scores = torch.einsum("bnshd,bnphd->bnshp", query, key) * query.shape[-1] ** -0.5
        return torch.einsum("bnshp,bnphd->bnshd", scores.softmax(-1), value)

    def _unpack_each(self, query: Tensor, scores: Tensor, value: Tensor, before: SoftmaxSums) -> Tensor:
        """Read at each frame t of a block the memory that is packed from all up to t.

        That memory is a mean of what was before the block and of the block's frames j <= t. So instead of the memory's
        keys, a query reads what they are made of, and likewise the values. Letters: b, n, t, j as above; h a head that
        reads, g one that packed, p a memory vector, d and e widths.
        """
        past, frames = _shares(scores, before)
        heads, width = range(self.num_heads), query.shape[-1]
        key, read = (part.weight.view(self.num_heads, width, -1) for part in (self.memory_key, self.memory_value))
        sources = torch.cat((before.values, value.transpose(2, 3)), dim=3)
        # Head by head, which needs no copies: the readers of all heads are H times as large as the frames.
        found = []
        for h in heads:
            reader = (query[..., h, :] @ key[h]).to(value.dtype).unflatten(-1, (-1, width))
            found.append(torch.stack([reader[..., g, :] @ sources[:, :, g].mT for g in heads], dim=3))
        of_past, of_frames = torch.stack(found, dim=3).split((self.memory, frames.shape[4]), dim=-1)
        logits = (of_past * past[:, :, :, None]).sum(4) + torch.einsum("bnthgj,bntgjp->bnthp", of_frames, frames)
        weights = (logits * width**-0.5).softmax(-1)
        of_past = weights[:, :, :, :, None] * past[:, :, :, None]
        of_frames = torch.einsum("bnthp,bntgjp->bnthgj", weights, frames)
        shares = torch.cat((of_past, of_frames), dim=-1)
        mixed = []
        for h in heads:
            found_h = torch.cat([shares[:, :, :, h, g] @ sources[:, :, g] for g in heads], dim=-1)
            mixed.append(found_h.to(query.dtype) @ read[h].mT)
        return torch.stack(mixed, dim=3)


def _shares(scores: Tensor, before: SoftmaxSums) -> tuple[Tensor, Tensor]:
    """What makes up the softmax-weighted mean of all frames up to each frame t of a block.

    Arguments
    ---------
    scores : Tensor
        (B, n, w, H, p), in n blocks of w frames.
    before : SoftmaxSums
        Of all before each block, values (B, n, H, p, d).

    Returns
    -------
    tuple[Tensor, Tensor]
        The factors of ``before.values``, (B, n, w, H, p), and the weights of the block's frames j, (B, n, w, H, j, p);
        zero for j > t.
    """
    maximum = torch.maximum(scores.detach().cummax(2).values, before.maximum[:, :, None])
    past = torch.exp(before.maximum[:, :, None] - maximum)
    future = torch.ones(scores.shape[2], scores.shape[2], dtype=torch.bool, device=scores.device).triu(1)
    later = scores[:, :, None].transpose(3, 4) - maximum[:, :, :, :, None]
    frames = torch.exp(later.masked_fill(future[:, None, :, None], -torch.inf))
    total = (past * before.weights[:, :, None] + frames.sum(4)).clamp_min(1)
    return past / total, frames / total[:, :, :, :, None]
