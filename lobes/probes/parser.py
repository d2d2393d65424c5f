"""Parsing of speech, in the manner of wav2tree (Pupier, Coavoux, Lecouteux & Goulian, Interspeech 2022).

CTC over characters recognises words. The frames between its word boundaries make a vector for each word, on which stand
a tagger and the biaffine parser of Dozat & Manning ("Deep Biaffine Attention for Neural Dependency Parsing", ICLR
2017).

Training takes the words of the transcript, where forced alignment (`ctc_align`) finds them with the recogniser as it
is at that step: tags and heads then belong to the right words, whatever the recogniser would have written. So the
parser never sees a recognition error while it trains; at test it parses both the transcript's words and those that were
recognised. Segments are chosen, not weighed: no gradient goes through the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from lobes.dataio.conllu import Tree
from lobes.errors import ConfigError
from lobes.probes.ctc import ctc_greedy
from lobes.probes.ctc_alignment import ctc_align, word_segments
from lobes.probes.downstream import Downstream
from lobes.probes.norms import FrameNorm
from lobes.probes.tokenizer import CharTokenizer
from lobes.probes.trees import IGNORE, TreeLabels, greedy_heads, maximum_spanning_tree

#: Ways to make a word's vector of its frames.
POOLS = ("mean", "lstm")
DECODERS = {"mst": maximum_spanning_tree, "greedy": greedy_heads}


class ParseScores(NamedTuple):
    """What `WordParser` returns, for W words in the longest utterance.

    Attributes
    ----------
    tags : tensor (B, W, tags)
        Logits.
    arcs : tensor (B, W, W + 1)
        Logits of heads, 0 being the root; the lowest number where a word cannot be one.
    deprels : tensor (B, W, W + 1, relations)
        Logits of the relation to each head.
    words : bool tensor (B, W)
        True for real words, which come first.
    """

    tags: Tensor
    arcs: Tensor
    deprels: Tensor
    words: Tensor


class Heard(NamedTuple):
    """What `SpeechParser` returns.

    Attributes
    ----------
    logits : tensor (B, T, V)
        For CTC.
    valid : bool tensor (B, T)
        True for real frames.
    aligned : bool tensor (B,)
        Whether the transcript could be aligned; if not, it has no words in `given`.
    given : ParseScores
        Of the transcript's words.
    recognised : ParseScores or None
        Of the words on the best path; None in training.
    """

    logits: Tensor
    valid: Tensor
    aligned: Tensor
    given: ParseScores
    recognised: ParseScores | None


class RecogniserHead(nn.Module):
    """A BiLSTM on standardised frames that gives CTC logits, and its own states for a parser.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Vocabulary V, blank included.
    hidden : int
        Units per direction.
    layers : int
        Number of LSTM layers.
    dropout : float
        Between LSTM layers and before the linear one.
    """

    def __init__(self, dim: int, n_outputs: int, hidden: int = 256, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.dim_states = dim, 2 * hidden
        self.norm = FrameNorm(dim)
        self.lstm = _lstm(dim, hidden, layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) and states (B, T, 2 hidden) of frames (B, T, D), 0 in padding; valid frames come first."""
        states = _run(self.lstm, self.norm(x, valid), valid.sum(1))
        padding = ~valid.unsqueeze(-1)
        return self.output(self.dropout(states)).masked_fill(padding, 0.0), states.masked_fill(padding, 0.0)


class WordPool(nn.Module):
    """One vector for each word, of the frames of its segment.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    kind : str
        `mean`, or `lstm`: the last states of a bidirectional LSTM over the segment.

    Raises
    ------
    ConfigError
        The kind is another.
    """

    def __init__(self, dim: int, kind: str = "mean") -> None:
        super().__init__()
        if kind not in POOLS:
            raise ConfigError(f"pool is '{kind}': expected one of {', '.join(POOLS)}")
        self.lstm = nn.LSTM(dim, (dim + 1) // 2, batch_first=True, bidirectional=True) if kind == "lstm" else None
        self.dim_out = dim if self.lstm is None else 2 * self.lstm.hidden_size

    def forward(self, frames: Tensor, segments: Tensor, n_words: int) -> Tensor:
        """Vectors (B, n_words, dim_out) of frames (B, T, D) and segments (B, T); 0 where there is no such word."""
        inside = segments >= 0
        word = (segments + n_words * torch.arange(len(segments), device=segments.device).unsqueeze(1))[inside]
        count = torch.bincount(word, minlength=len(segments) * n_words)
        chosen = frames[inside]  # by utterance, then word, then time
        if self.lstm is None:
            total = frames.new_zeros(len(count), frames.shape[-1]).index_add(0, word, chosen)
            pooled = total / count.clamp(min=1).unsqueeze(1).to(total.dtype)
        else:
            pooled = frames.new_zeros(len(count), self.dim_out)
            there = count > 0
            if there.any():
                lengths = count[there].cpu()
                padded = pad_sequence(list(chosen.split(lengths.tolist())), batch_first=True)
                packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
                last = self.lstm(packed)[1][0].transpose(0, 1).flatten(1)
                pooled = pooled.index_put((there.nonzero().squeeze(1),), last.to(pooled.dtype))
        return pooled.view(len(segments), n_words, -1)


class Biaffine(nn.Module):
    """Scores of pairs, x U y + linear terms of both + bias (Dozat & Manning 2017); it begins at 0.

    Parameters
    ----------
    dim : int
        Of both vectors.
    n_outputs : int
        Scores of each pair.
    """

    def __init__(self, dim: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_outputs, dim + 1, dim + 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (B, X, Y, outputs) of x (B, X, D) with y (B, Y, D)."""
        x, y = (F.pad(side, (0, 1), value=1.0) for side in (x, y))
        return torch.einsum("bxi,oij,byj->bxyo", x, self.weight, y)


class WordParser(nn.Module):
    """A BiLSTM over words, a tagger, and biaffine scorers of heads and relations.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_tags, n_deprels : int
        Parts of speech, and relations.
    pool : str
        As for `WordPool`.
    hidden : int
        Units of the word LSTM per direction.
    layers : int
        Its layers.
    arc_dim, deprel_dim : int
        Widths in which heads and relations are scored.
    dropout : float
        On the vectors of words, between LSTM layers and in the scorers.
    """

    def __init__(
        self,
        dim: int,
        n_tags: int,
        n_deprels: int,
        *,
        pool: str = "lstm",
        hidden: int = 256,
        layers: int = 2,
        arc_dim: int = 256,
        deprel_dim: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.pool = WordPool(dim, pool)
        self.dropout = nn.Dropout(dropout)
        self.lstm = _lstm(self.pool.dim_out, hidden, layers, dropout)
        self.tags = nn.Linear(2 * hidden, n_tags)
        self.root = nn.Parameter(0.1 * torch.randn(2 * hidden))
        widths = {"arc_word": arc_dim, "arc_head": arc_dim, "deprel_word": deprel_dim, "deprel_head": deprel_dim}
        self.views = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(2 * hidden, width), nn.LeakyReLU(0.1), nn.Dropout(dropout))
                for name, width in widths.items()
            }
        )
        self.arcs, self.deprels = Biaffine(arc_dim, 1), Biaffine(deprel_dim, n_deprels)

    def forward(self, frames: Tensor, segments: Tensor, counts: Tensor) -> ParseScores:
        """Scores of the words that `word_segments` found: segments (B, T) and counts (B,), in frames (B, T, D)."""
        n_words = max(1, int(counts.max()))
        words = torch.arange(n_words, device=counts.device) < counts.unsqueeze(1)
        states = _run(self.lstm, self.dropout(self.pool(frames, segments, n_words)), counts)
        states = self.dropout(states.masked_fill(~words.unsqueeze(-1), 0.0))
        heads = torch.cat([self.root.to(states.dtype).expand(len(states), 1, -1), states], 1)
        arcs = self.arcs(self.views["arc_word"](states), self.views["arc_head"](heads)).squeeze(-1).float()
        deprels = self.deprels(self.views["deprel_word"](states), self.views["deprel_head"](heads)).float()
        possible = F.pad(words, (1, 0), value=True).unsqueeze(1)
        possible = possible & ~torch.eye(n_words, n_words + 1, dtype=torch.bool, device=words.device).roll(1, 1)
        arcs = arcs.masked_fill(~possible, torch.finfo(arcs.dtype).min)
        return ParseScores(self.tags(states).float(), arcs, deprels, words)


class SpeechParser(nn.Module):
    """Encoder, recogniser and parser in one module.

    Parameters
    ----------
    downstream : Downstream
        With a `RecogniserHead`.
    parser : WordParser
        On its states.
    tokenizer : CharTokenizer
        Has the space among its characters.
    """

    def __init__(self, downstream: Downstream, parser: WordParser, tokenizer: CharTokenizer) -> None:
        super().__init__()
        self.downstream, self.parser = downstream, parser
        self.space = tokenizer.encode(" ")[0]

    def forward(self, batch: Any) -> Heard:
        """Read a batch with `tokens`, and with `sig` or `layers` as for `Downstream`."""
        (logits, states), valid = self.downstream(batch)
        alignment = ctc_align(logits.detach(), valid, *batch.tokens)
        given = self.parser(states, *word_segments(alignment.labels, valid, self.space))
        recognised = None
        if not self.training:
            recognised = self.parser(states, *word_segments(logits.argmax(-1), valid, self.space))
        return Heard(logits, valid, alignment.aligned, given, recognised)

    def parameter_groups(self, encoder_lr: float) -> list[dict[str, Any]]:
        """As `Downstream.parameter_groups`, with the parser at the optimizer's own learning rate."""
        first, *others = self.downstream.parameter_groups(encoder_lr)
        return [{**first, "params": [*first["params"], *self.parser.parameters()]}, *others]


def parse_loss(scores: ParseScores, tags: Tensor, heads: Tensor, deprels: Tensor, usable: Tensor) -> Tensor:
    """Return -log p(tags, heads, relations of these heads | words), nats per utterance, over `usable` ones.

    It is a sum over words, as CTC's loss is one over characters: added to it, it makes the joint probability.

    Parameters
    ----------
    scores : ParseScores
        Of the transcript's words.
    tags, heads, deprels : integer tensors (B, W)
        Padded with anything; `IGNORE` where training does not know the label.
    usable : bool tensor (B,)
        Utterances whose words were found; without any the loss is 0 with zero gradients.
    """
    n_words = scores.words.shape[1]
    tags, heads, deprels = (
        F.pad(gold, (0, max(0, n_words - gold.shape[1])))[:, :n_words] for gold in (tags, heads, deprels)
    )
    real = scores.words & usable.unsqueeze(1)
    at_head = scores.deprels[real].gather(1, heads[real].view(-1, 1, 1).expand(-1, 1, scores.deprels.shape[-1]))
    parts = ((scores.tags[real], tags), (scores.arcs[real], heads), (at_head.squeeze(1), deprels))
    total = sum(F.cross_entropy(logits, gold[real], ignore_index=IGNORE, reduction="sum") for logits, gold in parts)
    return total / usable.sum().clamp(min=1)


@torch.no_grad()
def decode_trees(
    scores: ParseScores, transcripts: Sequence[Sequence[str]], labels: TreeLabels, decoder: str = "mst"
) -> list[Tree]:
    """Return the tree of each utterance.

    Parameters
    ----------
    scores : ParseScores
        Of W words and more.
    transcripts : sequence of sequences of str
        The words. An utterance whose words could not be aligned has no scores: a chain of the first tag and relation
        stands for it, so that each word is counted.
    labels : TreeLabels
        Of the training.
    decoder : str
        `mst`, a tree with one root, or `greedy`, each word's best head.

    Raises
    ------
    ConfigError
        The decoder is another.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"decoder is '{decoder}': expected one of {', '.join(DECODERS)}")
    trees = []
    for row, words in enumerate(transcripts):
        count = len(words)
        if int(scores.words[row].sum()) != count:
            trees.append(labels.decode(words, [0] * count, list(range(count)), [0] * count))
            continue
        heads = DECODERS[decoder](scores.arcs[row, :count, : count + 1].double().cpu().numpy())
        tags = scores.tags[row, :count].argmax(-1).tolist()
        deprels = [int(scores.deprels[row, word, head].argmax()) for word, head in enumerate(heads)]
        trees.append(labels.decode(words, tags, heads, deprels))
    return trees


def recognised_words(heard: Heard, tokenizer: CharTokenizer) -> list[list[str]]:
    """The words on the best path of each utterance, as many as `Heard.recognised` has."""
    return [tokenizer.decode(path).split() for path in ctc_greedy(heard.logits, heard.valid)]


def _lstm(dim: int, hidden: int, layers: int, dropout: float) -> nn.LSTM:
    return nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0)


def _run(lstm: nn.LSTM, x: Tensor, counts: Tensor) -> Tensor:
    """States of packed sequences: the backward direction begins at each one's own end; 0 after that."""
    n_steps = x.shape[1]
    if n_steps == 0:
        x = F.pad(x, (0, 0, 0, 1))
    # Packing refuses length 0: such a sequence reads one step, which callers mask.
    packed = pack_padded_sequence(x, counts.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0][:, :n_steps]
