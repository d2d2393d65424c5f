"""Training speed and memory of BEST-RQ: ours beside SpeechBrain's own recipe, on the same audio, at the same size.

    python tools/bench_best_rq.py --threads 1                # table, and result.json under --output
    python tools/bench_best_rq.py --threads 1 --profile      # also the operators that the time goes to

A step is what a recipe does with a batch of waveforms: log-mel features, targets, masks and noise, encoder, loss,
backward, clipping, AdamW. SpeechBrain's side is the parts and the steps of its 1.1.2 recipe
recipes/LibriSpeech/self-supervised-learning/BEST-RQ (convolutional front end, Conformer with relative-position
attention, its quantiser and its mask), with fewer layers and a smaller width. Ours has the same width, depth, kernel,
codebook, dropout and share of masked frames; its feed-forwards are widened until both have as many parameters.

Every figure comes from a fresh process; the systems take turns in each round, and a ratio is the median over rounds.
With one thread, the seconds are the process's CPU time, so that other programs on the machine disturb little; with
more, they are the clock's. Peak memory is the largest resident size above that after the imports and one step of a
single linear unit, with which PyTorch loads what it loads on first use.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

SAMPLE_RATE, N_MELS, STACK, MASKED_SHARE, DROPOUT, KERNEL = 16000, 80, 4, 0.6, 0.1, 31
SPEECHBRAIN, SUMMARY, SDPA = "speechbrain", "lobes SummaryMixing", "lobes SDPA"
SYSTEMS = (SPEECHBRAIN, SUMMARY, SDPA)
# What SummaryMixing has to reach: times SpeechBrain's speed at each clip length, and the largest share of its memory.
REQUIRED_SPEED, REQUIRED_MEMORY = {5: 4.0, 15: 4.0, 30: 6.0}, 0.5


@dataclass(frozen=True)
class Sizes:
    """One encoder size; `hidden` is the width of SpeechBrain's feed-forwards, `our_hidden` of ours."""

    dim: int
    depth: int
    heads: int
    hidden: int
    codes: int = 8192
    our_hidden: int = 0


SIZES = {
    "tiny": Sizes(dim=144, depth=4, heads=4, hidden=576),
    "base": Sizes(dim=576, depth=12, heads=8, hidden=2048),
}


class SpeechBrainBestRQ(nn.Module):
    """The modules of SpeechBrain's recipe, put together as its ``compute_forward`` does."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
        from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
        from speechbrain.nnet.linear import Linear
        from speechbrain.nnet.quantisers import RandomProjectionQuantizer
        from speechbrain.processing.features import InputNormalization

        self.features = Fbank(sample_rate=SAMPLE_RATE, n_fft=400, n_mels=N_MELS)
        self.normalise = InputNormalization(norm_type="sentence")
        self.front_end = ConvolutionFrontEnd(
            input_shape=(8, 10, N_MELS),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=(128, 32),
            kernel_sizes=(3, 3),
            strides=(2, 2),
            residuals=(False, False),
        )
        transformer = TransformerASR(
            input_size=640,
            tgt_vocab=2048,
            d_model=sizes.dim,
            nhead=sizes.heads,
            num_encoder_layers=sizes.depth,
            num_decoder_layers=0,
            d_ffn=sizes.hidden,
            dropout=DROPOUT,
            activation=nn.GELU,
            conformer_activation=nn.GELU,
            kernel_size=KERNEL,
            encoder_module="conformer",
            attention_type="RelPosMHAXL",
            normalize_before=True,
            causal=False,
        )
        self.encoder = EncoderWrapper(transformer)
        self.quantiser = RandomProjectionQuantizer(N_MELS * STACK, 16, sizes.codes)
        self.head = Linear(input_size=sizes.dim, n_neurons=sizes.codes)

    def forward(self, waveform: Tensor, lengths: Tensor, step: int) -> tuple[Tensor, int]:
        """Loss of a batch (B, samples) of relative lengths (B,), and how many frames it is a mean over."""
        from speechbrain.lobes.models.BESTRQ import compute_mask

        n_frames = (lengths * waveform.shape[1]).long() // (SAMPLE_RATE // 100) + 1
        shape = (len(waveform), int(n_frames.max()), N_MELS)
        mask = compute_mask(shape, n_frames.tolist(), MASKED_SHARE / STACK, STACK)
        features = self.normalise(self.features(waveform), lengths, epoch=1)
        features = F.pad(features, (0, 0, -features.shape[1] % STACK, 0))  # the recipe pads on the left
        groups = mask[::STACK] // STACK
        targets = self.quantiser(features.reshape(len(features), -1, N_MELS * STACK)[:, groups])
        features[:, mask] = torch.normal(0.0, 0.1, (len(features), len(mask), N_MELS))
        encoded = self.encoder(self.front_end(features), lengths)
        logits = self.head(encoded)[:, groups]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), targets.numel()


class OurBestRQ(nn.Module):
    """Our encoder and objective, as a recipe builds them."""

    def __init__(self, sizes: Sizes, mixer: Callable) -> None:
        super().__init__()
        from lobes.encoders import Encoder, LogMel, StackingStem
        from lobes.objectives import BestRQ, SSLModel

        encoder = Encoder(
            features=LogMel(SAMPLE_RATE, N_MELS),
            stem=StackingStem(N_MELS, sizes.dim, STACK),
            dim=sizes.dim,
            depth=sizes.depth,
            mixer=mixer,
            ffn_factor=sizes.our_hidden / sizes.dim,
            kernel=KERNEL,
            dropout=DROPOUT,
        )
        # SpeechBrain masks one encoder frame at a time: so do we here.
        objective = BestRQ(encoder, sizes.codes, mask_probability=MASKED_SHARE, mask_span=1, noise=0.1)
        self.model = SSLModel(encoder, objective)

    def forward(self, waveform: Tensor, lengths: Tensor, step: int) -> tuple[Tensor, int]:
        """Loss of a batch (B, samples) of relative lengths (B,), and how many frames it is a mean over."""
        ids = [f"clip-{row}" for row in range(len(waveform))]
        output = self.model(SimpleNamespace(id=ids, sig=(waveform, lengths), step=step))
        return output.loss, int(output.weight)


class FirstUse(nn.Module):
    """The smallest model that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Linear(1, 1)

    def forward(self, waveform: Tensor, lengths: Tensor, step: int) -> tuple[Tensor, int]:
        """A number to go down."""
        return self.unit(waveform).sum(), 0


def build(system: str, sizes: Sizes) -> nn.Module:
    """One of `SYSTEMS` with fresh weights, in training mode."""
    from functools import partial

    from lobes import mixers

    torch.manual_seed(0)
    if system == SPEECHBRAIN:
        return SpeechBrainBestRQ(sizes).train()
    if system == SUMMARY:
        return OurBestRQ(sizes, mixers.SummaryMixing).train()
    return OurBestRQ(sizes, partial(mixers.SDPA, num_heads=sizes.heads, dropout=DROPOUT)).train()


def trained_parameters(model: nn.Module) -> int:
    """Parameters that the optimizer changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def match_parameters(sizes: Sizes) -> Sizes:
    """Give our feed-forwards the width, a multiple of 16, at which we have as many parameters as SpeechBrain."""
    target = trained_parameters(build(SPEECHBRAIN, sizes))
    narrow, wide = (
        trained_parameters(build(SUMMARY, replace(sizes, our_hidden=hidden)))
        for hidden in (sizes.hidden, sizes.hidden + 1)
    )
    our_hidden = 16 * round((sizes.hidden + (target - narrow) / (wide - narrow)) / 16)
    return replace(sizes, our_hidden=our_hidden)


def waveforms(seconds: int, batch_seconds: int, audio_folder: str | None) -> tuple[Tensor, Tensor]:
    """A batch of clips of one length: noise, or the folder's files one after the other, cut."""
    batch, samples = batch_seconds // seconds, seconds * SAMPLE_RATE
    if audio_folder is None:
        generator = torch.Generator().manual_seed(0)
        return 0.1 * torch.randn(batch, samples, generator=generator), torch.ones(batch)
    from lobes.dataio import read_audio

    parts, total = [], 0
    for path in sorted(p for p in Path(audio_folder).rglob("*") if p.suffix in (".wav", ".flac", ".ogg")):
        parts.append(read_audio(path, SAMPLE_RATE))
        total += len(parts[-1])
        if total >= batch * samples:
            return torch.cat(parts)[: batch * samples].view(batch, samples), torch.ones(batch)
    sys.exit(f"--audio_folder {audio_folder}: {total / SAMPLE_RATE:.0f} s of audio; expected {batch_seconds} s or more")


def train_steps(model: nn.Module, batch: tuple[Tensor, Tensor], n_steps: int) -> tuple[list[float], list[int]]:
    """Seconds and masked frames of each of ``n_steps`` training steps, after one that is not counted."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.98), weight_decay=0.01)
    seconds, masked = [], []
    for step in range(n_steps + 1):
        started = clock()
        loss, count = model(*batch, step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(clock() - started)
        masked.append(count)
    return seconds[1:], masked[1:]


def peak_mb() -> float:
    """The largest resident size of this process so far, in MB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def worker(job: dict) -> None:
    """Measure one system at one length and print the figures as JSON; runs in a process of its own."""
    torch.set_num_threads(job["threads"])
    # Both sides' imports come first, whichever is measured, so that the memory they take is not counted.
    import speechbrain.lobes.models.BESTRQ
    import speechbrain.lobes.models.transformer.TransformerASR  # noqa: F401

    import lobes.objectives  # noqa: F401

    train_steps(FirstUse(), (torch.ones(1, 1), torch.ones(1)), 1)
    batch = waveforms(job["seconds"], job["batch_seconds"], job["audio_folder"])
    before = peak_mb()
    model = build(job["system"], Sizes(**job["sizes"]))
    if job["profile"]:
        write_profile(model, batch, Path(job["profile"]))
        return
    seconds, masked = train_steps(model, batch, job["steps"])
    figures = {
        "system": job["system"],
        "seconds": job["seconds"],
        "step_seconds": min(seconds),  # the least disturbed by whatever else the machine does
        "masked_frames": statistics.mean(masked),
        "parameters": trained_parameters(model),
        "peak_mb": peak_mb() - before,
    }
    print(json.dumps(figures))


def write_profile(model: nn.Module, batch: tuple[Tensor, Tensor], path: Path) -> None:
    """Write the operators of one training step by the time spent in each itself."""
    train_steps(model, batch, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        train_steps(model, batch, 1)
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)
    path.write_text(table + "\n", encoding="utf-8")


def run_worker(**job) -> dict:
    """Run `worker` in a fresh process."""
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bench_best_rq: {job['system']} at {job['seconds']} s failed with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def summarise(rounds: list[dict[tuple[int, str], dict]], batch_seconds: int) -> list[dict]:
    """One row per length and system: medians over rounds, ratios within rounds."""
    rows = []
    for seconds, system in rounds[0]:
        runs = [figures[seconds, system] for figures in rounds]
        references = [figures[seconds, SPEECHBRAIN] for figures in rounds]
        pairs = list(zip(references, runs, strict=True))
        ratios = [reference["step_seconds"] / run["step_seconds"] for reference, run in pairs]
        rows.append(
            {
                "seconds": seconds,
                "system": system,
                "parameters": runs[0]["parameters"],
                "masked_frames": statistics.mean(run["masked_frames"] for run in runs),
                "audio_per_second": statistics.median(batch_seconds / run["step_seconds"] for run in runs),
                "speed_ratio": statistics.median(ratios),
                "speed_ratio_range": [min(ratios), max(ratios)],
                "peak_mb": statistics.median(run["peak_mb"] for run in runs),
                "memory_ratio": statistics.median(run["peak_mb"] / reference["peak_mb"] for reference, run in pairs),
            }
        )
    return rows


def markdown(rows: list[dict]) -> str:
    """The table of the README."""
    lines = [
        "| clip | system | parameters | masked frames | audio s per s | speed | peak memory | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["speed_ratio_range"]
        lines.append(
            f"| {row['seconds']} s | {row['system']} | {row['parameters'] / 1e6:.2f} M | {row['masked_frames']:.0f} "
            f"| {row['audio_per_second']:.1f} | {row['speed_ratio']:.2f}x ({low:.2f}-{high:.2f}) "
            f"| {row['peak_mb']:.0f} MB | {row['memory_ratio']:.2f}x |"
        )
    return "\n".join(lines)


def shortfalls(rows: list[dict]) -> list[str]:
    """What SummaryMixing does not reach of `REQUIRED_SPEED` and `REQUIRED_MEMORY`, and unequal sizes."""
    wrong = []
    reference = {row["seconds"]: row for row in rows if row["system"] == SPEECHBRAIN}
    for row in (row for row in rows if row["system"] == SUMMARY):
        where, other = f"{row['seconds']} s", reference[row["seconds"]]
        needed = REQUIRED_SPEED.get(row["seconds"], 0.0)
        if row["speed_ratio"] < needed:
            wrong.append(f"{where}: {row['speed_ratio']:.2f}x the speed, expected {needed:g}x")
        if row["memory_ratio"] > REQUIRED_MEMORY:
            wrong.append(f"{where}: {row['memory_ratio']:.2f}x the memory, expected {REQUIRED_MEMORY:g}x at most")
        for field in ("parameters", "masked_frames"):
            if abs(row[field] / other[field] - 1) > 0.03:
                wrong.append(f"{where}: {field} differ by more than 3 %: {row[field]:.0f} and {other[field]:.0f}")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if what is required is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 15, 30], help="clip lengths in seconds")
    parser.add_argument("--batch_seconds", type=int, default=60, help="audio per batch")
    parser.add_argument("--audio_folder", help="take the audio from files in here instead of noise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="how often the systems take turns")
    parser.add_argument("--steps", type=int, default=5, help="timed steps in each process; the fastest counts")
    parser.add_argument("--profile", action="store_true", help="also write the operators of a step of each system")
    parser.add_argument("--output", type=Path, default=Path("results/bench_best_rq"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        worker(json.loads(args.worker))
        return 0

    args.output.mkdir(parents=True, exist_ok=True)
    sizes = match_parameters(SIZES[args.size])
    job = {name: getattr(args, name) for name in ("batch_seconds", "audio_folder", "threads", "steps")}
    job["sizes"] = asdict(sizes)
    plan = [(seconds, system) for seconds in args.clips for system in SYSTEMS]
    rounds: list[dict[tuple[int, str], dict]] = []
    with tqdm(total=args.rounds * len(plan), unit="run") as bar:
        for _ in range(args.rounds):
            rounds.append({})
            for seconds, system in plan:
                bar.set_description(f"{system}, {seconds} s")
                rounds[-1][seconds, system] = run_worker(system=system, seconds=seconds, profile="", **job)
                bar.update()
    rows = summarise(rounds, args.batch_seconds)
    if args.profile:
        for seconds, system in plan:
            path = args.output / f"profile_{system.replace(' ', '_')}_{seconds}s.txt"
            run_worker(system=system, seconds=seconds, profile=str(path), **job)
    wrong = shortfalls(rows)
    machine = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": args.threads}
    result = {"machine": machine, "sizes": asdict(sizes), "rows": rows, "shortfalls": wrong}
    (args.output / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(markdown(rows))
    print("\n".join(["short of what is required:", *wrong]) if wrong else "All requirements are met.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
