"""Public models. Widths and depths are small, everything else is as published: norms, masks, kernels, positions.

No weights are loaded, and nothing is downloaded. A model joins by a line in `SUBJECTS`.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from contract.subject import DIM, HEADS, HIDDEN, Masks, NotOfferedError, Subject
from lobes.encoders import frame_mask
from lobes.mixers import Chunks


class SpeechBrainEncoder(Subject):
    """SpeechBrain's ``TransformerASR.encode`` around its Conformer or Branchformer, as its recipes call it."""

    library = "speechbrain"
    call = "TransformerASR.encode(x, wav_len)"

    def __init__(self, name: str, encoder: str, attention: str, causal: bool = False) -> None:
        super().__init__(name)
        self.encoder, self.attention, self.causal = encoder, attention, causal
        if causal:
            self.call += ", built with causal=True"

    def build(self, causal: bool = False) -> nn.Module:
        """Kernel 31."""
        from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

        return TransformerASR(
            tgt_vocab=4,
            input_size=DIM,
            d_model=DIM,
            nhead=HEADS,
            num_encoder_layers=self.depth,
            num_decoder_layers=0,
            d_ffn=HIDDEN,
            csgu_linear_units=HIDDEN,
            encoder_module=self.encoder,
            attention_type=self.attention,
            normalize_before=True,
            causal=causal or self.causal,
        )

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With relative lengths, and a ``DynChunkTrainConfig`` if in chunks."""
        if chunks is not None:
            self._check_chunks()
        return model.encode(x, lengths / max(x.shape[1], 1), dynchunktrain_config=_dynamic_chunks(chunks))

    def stream(self, model: Any, x: Tensor, chunks: Chunks) -> Tensor:
        """``encode_streaming`` with the context that ``make_streaming_context`` makes."""
        self._check_chunks()
        context = model.make_streaming_context(_dynamic_chunks(chunks))
        return torch.cat([model.encode_streaming(part, context) for part in x.split(chunks.size, 1)], 1)

    def _check_chunks(self) -> None:
        if self.encoder == "branchformer":
            raise NotOfferedError('"Dynamic Chunk Training unsupported for this encoder"')
        if self.causal:
            raise NotOfferedError('chunks are "incompatible with causal"')


class SpeechBrainHyperMixing(Subject):
    """SpeechBrain's mixer by itself."""

    library = "speechbrain"
    call = "HyperMixing(x, x, x, key_padding_mask=mask)"

    def build(self, causal: bool = False) -> nn.Module:
        """Four heads."""
        from speechbrain.nnet.hypermixing import HyperMixing

        self.whole_only(causal)
        return HyperMixing(DIM, HIDDEN, num_heads=HEADS)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With a padding mask; its ``attn_mask`` is documented to have no effect."""
        self.whole_only(chunks=chunks)
        return model(x, x, x, key_padding_mask=~frame_mask(lengths, x.shape[1]))[0]


class TorchaudioConformer(Subject):
    """torchaudio's Conformer; its layer norms stay, its batch norms use their running statistics."""

    library = "torchaudio"
    call = "Conformer(x, lengths)"

    def build(self, causal: bool = False) -> nn.Module:
        """Kernel 31."""
        from torchaudio.models import Conformer

        self.whole_only(causal)
        return Conformer(DIM, HEADS, HIDDEN, self.depth, depthwise_conv_kernel_size=31)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With absolute lengths."""
        self.whole_only(chunks=chunks)
        return model(x, lengths)[0]


class HuggingFaceFNet(Subject):
    """Hugging Face's FNet from embeddings on, padded to the longest of the batch or, as documented, to one length."""

    library = "transformers"
    zeros_only = "takes no mask: padding is the embedding of the pad token, a zero vector in a new model"

    def __init__(self, name: str, fixed: int = 0) -> None:
        super().__init__(name)
        self.fixed = fixed
        self.call = "FNetModel(inputs_embeds=x)" + (", x padded to its largest length" if fixed else "")

    def build(self, causal: bool = False) -> nn.Module:
        """No pooler."""
        from transformers import FNetConfig, FNetModel

        self.whole_only(causal)
        sizes = dict(vocab_size=16, hidden_size=DIM, num_hidden_layers=self.depth, intermediate_size=HIDDEN)
        return FNetModel(FNetConfig(**sizes), add_pooling_layer=False)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Lengths are not used: there is nowhere to pass them."""
        self.whole_only(chunks=chunks)
        padded = nn.functional.pad(x, (0, 0, 0, self.fixed - x.shape[1])) if self.fixed else x
        return model(inputs_embeds=padded).last_hidden_state[:, : x.shape[1]]


class Wav2Vec2(Subject):
    """Hugging Face's Wav2Vec2: the base layout (group norm) or that of large-lv60 (layer norm)."""

    library = "transformers"
    width = 0
    conv_kernels, conv_strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    kind = "Wav2Vec2"

    def __init__(self, name: str, norm: str, mask: bool) -> None:
        super().__init__(name)
        self.norm, self.mask = norm, mask
        self.call = f"{self.kind}Model(x" + (", attention_mask)" if mask else ")")
        self.zeros_only = "" if mask else '"padded with 0 and no attention_mask should be passed"'

    def config(self) -> Any:
        """The seven convolutions of the origin, of 32 channels."""
        import transformers

        layer = self.norm == "layer"
        return getattr(transformers, f"{self.kind}Config")(
            hidden_size=DIM,
            num_hidden_layers=self.depth,
            num_attention_heads=HEADS,
            intermediate_size=HIDDEN,
            conv_dim=[32] * 7,
            conv_kernel=list(self.conv_kernels),
            conv_stride=list(self.conv_strides),
            feat_extract_norm=self.norm,
            do_stable_layer_norm=layer,
            conv_bias=layer,
        )

    def build(self, causal: bool = False) -> nn.Module:
        """The model alone."""
        import transformers

        self.whole_only(causal)
        return getattr(transformers, f"{self.kind}Model")(self.config())

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With an attention mask over samples, or with none."""
        self.whole_only(chunks=chunks)
        mask = frame_mask(lengths, x.shape[1]).long() if self.mask else None
        return model(x, attention_mask=mask).last_hidden_state

    def inputs(self, n_frames: int) -> int:
        """400 samples for the first frame, 320 for each further one."""
        return 400 + 320 * (n_frames - 1) if n_frames else 0


class Wav2Vec2Conformer(Wav2Vec2):
    """Hugging Face's Wav2Vec2-Conformer, with relative positions."""

    kind = "Wav2Vec2Conformer"


class Data2VecAudio(Wav2Vec2):
    """Hugging Face's data2vec-audio."""

    kind = "Data2VecAudio"


class Wav2Vec2Bert(Subject):
    """Hugging Face's Wav2Vec2-BERT: a Conformer with causal convolutions, from features on."""

    library = "transformers"
    call = "Wav2Vec2BertModel(x, attention_mask)"

    def build(self, causal: bool = False) -> nn.Module:
        """Kernel 31."""
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        self.whole_only(causal)
        config = Wav2Vec2BertConfig(
            feature_projection_input_dim=DIM,
            hidden_size=DIM,
            num_hidden_layers=self.depth,
            num_attention_heads=HEADS,
            intermediate_size=HIDDEN,
        )
        return Wav2Vec2BertModel(config)

    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """With an attention mask over frames."""
        self.whole_only(chunks=chunks)
        return model(x, attention_mask=frame_mask(lengths, x.shape[1]).long()).last_hidden_state


class SpeechBrainMasks(Masks):
    """The masks of SpeechBrain's BEST-RQ recipe: 4 frames of 10 ms, each a start with probability 0.15."""

    name = "BEST-RQ masks"
    library = "speechbrain"
    call = "compute_mask(shape, sample_lens, 0.15, 4)"

    def share(self, seconds: float, others: list[float]) -> float:
        """The masked indices are the same for the whole batch."""
        from speechbrain.lobes.models.BESTRQ import compute_mask

        random.seed(0)
        torch.manual_seed(0)
        n_frames = [round(100 * length) for length in (seconds, *others)]
        return len(compute_mask((len(n_frames), max(n_frames), 80), n_frames, 0.15, 4)) / n_frames[0]


def _dynamic_chunks(chunks: Chunks | None) -> Any:
    """As SpeechBrain's ``DynChunkTrainConfig``, whose left context counts chunks."""
    from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

    if chunks is None:
        return None
    return DynChunkTrainConfig(chunks.size, None if chunks.left is None else chunks.left // chunks.size)


SUBJECTS: tuple[Subject, ...] = (
    SpeechBrainEncoder("Conformer, RelPosMHAXL", "conformer", "RelPosMHAXL"),
    SpeechBrainEncoder("Conformer, RelPosMHAXL, causal", "conformer", "RelPosMHAXL", causal=True),
    SpeechBrainEncoder("Conformer, RoPEMHA", "conformer", "RoPEMHA"),
    SpeechBrainEncoder("Conformer, HyperMixing", "conformer", "hypermixing"),
    SpeechBrainEncoder("Branchformer, RelPosMHAXL", "branchformer", "RelPosMHAXL"),
    SpeechBrainHyperMixing("HyperMixing alone"),
    TorchaudioConformer("Conformer"),
    Wav2Vec2("Wav2Vec2, group norm (base)", "group", mask=False),
    Wav2Vec2("Wav2Vec2, group norm, mask passed", "group", mask=True),
    Wav2Vec2("Wav2Vec2, layer norm (large-lv60)", "layer", mask=True),
    Data2VecAudio("data2vec-audio", "layer", mask=True),
    Wav2Vec2Conformer("Wav2Vec2-Conformer", "layer", mask=True),
    Wav2Vec2Bert("Wav2Vec2-BERT"),
    HuggingFaceFNet("FNet, padded to the batch"),
    HuggingFaceFNet("FNet, padded to 512", fixed=512),
)
