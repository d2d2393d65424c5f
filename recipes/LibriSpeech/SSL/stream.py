"""Encode a recording as if it arrived live, and say how fast that was.

    python stream.py file.wav                              # random weights of hparams/encoders/small/streaming.yaml
    python stream.py file.wav --encoder results/NAME/1     # an encoder that was pretrained for streaming
    python stream.py file.wav --chunk 16 --left 4 --out frames.npy --check

The file is read in pieces of --piece seconds, whatever its length; one of another sample rate than the encoder's is
read and resampled as a whole first. --check also encodes all of it offline, in the same chunks, and prints the largest
difference (this needs memory for the whole file).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from lobes.dataio import read_audio
from lobes.encoders import StreamingEncoder
from lobes.errors import DataError
from lobes.export import load_encoder
from lobes.training import load_part, run

RANDOM = Path(__file__).parents[3] / "hparams" / "encoders" / "small" / "streaming.yaml"


def pieces(path: Path, seconds: float, sample_rate: int) -> Iterator[torch.Tensor]:
    """Mono audio at that rate, a piece at a time."""
    samples = round(seconds * sample_rate)
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != sample_rate:
                yield from read_audio(path, sample_rate).split(samples)
                return
            for block in file.blocks(samples, dtype="float32", always_2d=True):
                yield torch.from_numpy(block.mean(1))
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path}: {error}; expected an audio file such as WAV or FLAC") from error


def megabytes() -> float:
    """Largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Stream a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--encoder", help="folder or name for load_encoder; random weights if not given")
    parser.add_argument("--chunk", type=int, default=16, help="frames of a chunk (16 are 0.64 s at 25 Hz)")
    parser.add_argument("--left", type=int, default=8, help="chunks that attention looks back")
    parser.add_argument("--piece", type=float, default=0.1, help="seconds of audio that arrive at once")
    parser.add_argument("--out", type=Path, help="write the frames (T, D) as NumPy file")
    parser.add_argument("--check", action="store_true", help="compare with the offline pass in chunks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(options.encoder) if options.encoder else load_part(RANDOM).eval()
    chunks = DynChunkTrainConfig(options.chunk, options.left)
    streaming = StreamingEncoder(encoder, chunks)
    streaming.feed(torch.zeros(streaming.encoder.sample_rate))  # what the first pass allocates is no growth
    streaming.finish()

    before, frames, latencies, seconds, busy = megabytes(), [], [], 0.0, 0.0
    for piece in pieces(options.file, options.piece, encoder.sample_rate):
        seconds += len(piece) / encoder.sample_rate
        start = time.perf_counter()
        new = streaming.feed(piece)
        busy += time.perf_counter() - start
        if len(new):
            latencies.append(time.perf_counter() - start)
            frames.append(new.half() if not options.check else new)
    frames.append(streaming.finish().to(frames[-1].dtype if frames else torch.float32))
    streamed = torch.cat(frames)
    if not latencies:
        print(f"{options.file}: {seconds:.2f} s, less than a chunk; {len(streamed)} frames at its end")
        return
    ms = 1000 * np.sort(latencies)
    slow = ms[int(0.95 * len(ms))]
    chunk_ms = 1000 * options.chunk / encoder.frame_rate
    print(f"{options.file}: {seconds:.1f} s, {len(streamed)} frames of {encoder.dim} at {encoder.frame_rate:g} Hz")
    print(f"chunk of {options.chunk} frames: {chunk_ms:.0f} ms of audio")
    print(f"computing a chunk: median {np.median(ms):.1f} ms, 95 % {slow:.1f} ms, max {ms[-1]:.1f} ms")
    print(f"real-time factor {busy / seconds:.4f} on one thread")
    print(
        f"memory: {encoder.state_floats() * 4 / 1024:.0f} KiB of state, process grew by {megabytes() - before:.0f} MB"
    )
    if options.out:
        np.save(options.out, streamed.numpy())
    if options.check:
        audio = torch.cat(list(pieces(options.file, options.piece, encoder.sample_rate)))
        with torch.no_grad():
            offline = encoder(audio[None], torch.ones(1), chunks).frames[0]
        print(f"largest difference from the offline pass in chunks: {(offline - streamed).abs().max():.1e}")


if __name__ == "__main__":
    run(main)
