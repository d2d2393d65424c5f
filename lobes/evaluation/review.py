"""A page to review detections on: pictures, sounds, scores, and marks that can be saved. Nothing is fetched.

Everything is inside the one HTML file, of bounded size; the marks are kept by the reader's browser.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError
from lobes.evaluation.plots import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lobes.dataio.annotations import Annotation

PAGES = Path(__file__).parent / "pages"
#: Pixels of a picture.
WIDTH, HEIGHT = 480, 152
#: How far above its median a picture's darkest spot is, dB, at least.
_RANGE = 25.0
#: Containers and encodings of sounds, the best first: MP3 is what every browser plays, and not every libsndfile writes.
_SOUNDS = (
    ("audio/mpeg", {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.3}),
    ("audio/ogg", {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.8}),
    ("audio/wav", {"format": "WAV", "subtype": "PCM_16"}),
)


@dataclass(frozen=True)
class ReviewItem:
    """A detection to be looked at.

    Attributes
    ----------
    event : Annotation
        With `score`; `file` is what the page calls the recording.
    path : Path
        The recording.
    threshold : float
        Score at which the class counts as detected.
    near_miss : bool
        Whether the event stayed below it.
    recorded_at : datetime, optional
        When the recording began.
    begin : float
        Seconds from the beginning of all recordings to the event's, one after the other, as Raven counts.
    sample_rate : int
        Of the file, Hz.
    """

    event: Annotation
    path: Path
    threshold: float
    near_miss: bool = False
    recorded_at: datetime | None = None
    begin: float = 0.0
    sample_rate: int = 16000


def choose_items(items: Sequence[ReviewItem], most: int) -> list[ReviewItem]:
    """Choose what to review where there is too much: of each class as many, evenly over the ranks of its scores.

    So the share of right ones among those shown, at any score, is that among all. Near misses are the likeliest ones,
    a quarter of the page at most.

    Parameters
    ----------
    items : sequence of ReviewItem
    most : int
        How many to choose.

    Returns
    -------
    list of ReviewItem
        Shuffled, the same way every time: should a page hold only the first of them, it is as fair a choice.
    """
    near = sorted((item for item in items if item.near_miss), key=_by_score)
    found = sorted((item for item in items if not item.near_miss), key=_by_score)
    near = near[: max(most // 4, most - len(found))]
    room = most - len(near)
    chosen: list[ReviewItem] = []
    by_label: dict[str, list[ReviewItem]] = {}
    for item in found:
        by_label.setdefault(item.event.label, []).append(item)
    # The smallest classes first: what they leave is for the others.
    for position, members in enumerate(sorted(by_label.values(), key=len)):
        share = (room - len(chosen)) // (len(by_label) - position)
        if len(members) > share:
            ranks: list[int] = np.linspace(0, len(members) - 1, share).round().astype(int).tolist() if share else []
            members = [members[rank] for rank in ranks]
        chosen += members
    chosen += near
    return [chosen[place] for place in np.random.default_rng(0).permutation(len(chosen))]


def _by_score(item: ReviewItem) -> tuple[float, str, float]:
    return -(item.event.score or 0.0), item.event.file or "", item.event.start


def write_review(
    path: str | Path,
    items: Sequence[ReviewItem],
    *,
    title: str,
    summary: str,
    recordings: str | Path | None = None,
    sample_rate: int = 16000,
    slow_down: float = 1.0,
    figures: Sequence[tuple[Figure, str]] = (),
    others: Mapping[str, Sequence[Annotation]] | None = None,
    context: float = 1.0,
    longest: float = 15.0,
    megabytes: float = 24.0,
    progress: bool = True,
) -> Path:
    """Write the page, atomically.

    Parameters
    ----------
    path : path
        Where, for example `index.html`.
    items : sequence of ReviewItem
        In the order in which they are to be kept, should the page be too large; see `choose_items`.
    title, summary : str
        Plain text.
    recordings : path, optional
        The folder that `file` of the items is in; by default where the page is. The browser keeps marks by it, file,
        time and class, so that a page of more recordings, of another choice or threshold has those of the one before.
    sample_rate : int
        Hz of pictures and sounds: what the detector reads.
    slow_down : float
        How many times slower than life to play, for what is above hearing.
    figures : sequence of (Figure, caption)
        Shown above, folded.
    others : mapping of str to sequence of Annotation, optional
        Per file, all that was detected: drawn thinly where it is in a picture.
    context : float
        Seconds before and after a detection.
    longest : float
        Seconds of a picture, at most; a longer detection is cut.
    megabytes : float
        Of pictures and sounds, at most; further items are left out, and the page says so.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        A detection has no score.
    """
    from tqdm import tqdm

    rows: list[dict[str, Any]] = []
    size, kind = 0, ""
    with tqdm(items, desc="Review page", unit="call", disable=None if progress else True) as bar:
        for item in bar:
            beside = (others or {}).get(item.event.file or "", ())
            row, sound = _row(item, sample_rate, slow_down, context, longest, beside)
            kind = sound or kind
            size += len(row["picture"] or "") + len(row["audio"] or "")
            if size > 1e6 * megabytes:
                break
            rows.append(row)
    left_out = len(items) - len(rows)
    if left_out:
        summary += f" {left_out} further ones would not fit on this page."
    root = Path(path).parent if recordings is None else Path(recordings)
    data = {
        "folder": _short_hash(str(root.resolve())),
        "former": _short_hash(json.dumps([row["id"] for row in rows])),  # by which marks were once kept
        "slow": 1 / slow_down,
        "picture": "data:image/webp;base64,",
        "audio": f"data:{kind};base64,",
    }
    page = (PAGES / "review.html").read_text(encoding="utf-8") % {
        "title": html.escape(title),
        "summary": html.escape(summary),
        "figures": _figures(figures),
        "style": (PAGES / "review.css").read_text(encoding="utf-8"),
        "script": (PAGES / "review.js").read_text(encoding="utf-8"),
        # Nothing in it may end the element that holds it.
        "data": json.dumps({**data, "items": rows}, ensure_ascii=False).replace("<", "\\u003c"),
    }
    from lobes.dataio.manifest import atomic_write

    atomic_write(path, page)
    return Path(path)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _figures(figures: Sequence[tuple[Figure, str]]) -> str:
    """Figures, folded away."""
    shown = (
        f"<figure>{inline_svg(figure, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for figure, caption in figures
    )
    body = "".join(shown)
    return f"<details><summary>Calls per hour</summary>{body}</details>" if body else ""


def _row(
    item: ReviewItem,
    sample_rate: int,
    slow_down: float,
    context: float,
    longest: float,
    others: Iterable[Annotation],
) -> tuple[dict[str, Any], str]:
    """What the page knows of a detection, and what kind of sound it is."""
    from lobes.dataio import AudioError, read_part

    event = item.event
    if event.score is None:
        raise DataError(f"event '{event.label}' at {event.start:g} s of {event.file}: has no score to be shown")
    start = max(event.start - context, 0.0)
    stop = min(event.end + context, start + longest)
    identity = f"{event.file}|{event.start:.3f}|{event.end:.3f}|{event.label}"
    row: dict[str, Any] = {
        "id": hashlib.sha256(identity.encode()).hexdigest()[:12],
        "file": event.file,
        "path": str(item.path),
        "start": round(event.start, 6),
        "end": round(event.end, 6),
        "begin": item.begin,
        "label": event.label,
        "score": round(event.score, 6),
        "threshold": round(item.threshold, 6),
        "near": item.near_miss,
        "low": event.low_hz,
        "high": event.high_hz,
        "channel": event.channel or 0,
        "nyquist": item.sample_rate / 2,
        "clock": _clock(item.recorded_at, event.start),
        "from": start,
        "length": stop - start,
        "top": sample_rate / 2,
        "others": [],
        "picture": None,
        "audio": None,
    }
    try:
        samples = read_part(item.path, start, stop, sample_rate, event.channel).numpy()
    except AudioError as error:
        return {**row, "problem": f"No picture: the recording {error.reason}."}, ""
    top = sample_rate / 2
    if event.high_hz is not None:
        top = min(500 * np.ceil(2 * event.high_hz / 500), top)  # so that a low call does not lie at the bottom
    kind, sound = encode_sound(samples, round(sample_rate / slow_down))
    beside = [other for other in others if other.end > start and other.start < stop and other.start != event.start]
    return {
        **row,
        "length": len(samples) / sample_rate,
        "top": round(top),
        "others": [{"start": o.start, "end": o.end, "low": o.low_hz, "high": o.high_hz} for o in beside],
        "picture": base64.b64encode(draw_spectrogram(samples, sample_rate, top)).decode(),
        "audio": base64.b64encode(sound).decode(),
    }, kind


def _clock(recorded_at: datetime | None, seconds: float) -> str:
    return "" if recorded_at is None else (recorded_at + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")


def draw_spectrogram(samples: NDArray[Any], sample_rate: int, top: float) -> bytes:
    """Draw a spectrogram from 0 to `top` Hz, dark on white, as a WebP picture of `WIDTH` × `HEIGHT` pixels.

    Parameters
    ----------
    samples : array (n,)
    sample_rate : int
        Hz.
    top : float
        Hz, half the sample rate at most.

    Returns
    -------
    bytes
    """
    from PIL import Image

    # About as many rows below `top` as the picture has: low calls get longer windows.
    size = int(np.clip(2 ** round(np.log2(0.85 * HEIGHT * sample_rate / top)), 256, 4096))
    starts = (np.arange(min(WIDTH, len(samples))) * max(len(samples) / WIDTH, 1.0)).astype(int)
    padded = np.pad(samples.astype(np.float32), (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    rows = max(2, round(top / sample_rate * size) + 1)
    spectrum = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)[:, :rows]
    level = 10 * np.log10(spectrum.real.T[::-1] ** 2 + spectrum.imag.T[::-1] ** 2 + 1e-10)
    floor = float(np.median(level))
    ceiling = max(float(np.quantile(level, 0.998)), floor + _RANGE)
    grey = 255 * (1 - np.clip((level - floor) / (ceiling - floor), 0, 1))
    picture = Image.fromarray(grey.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=50, method=1)
    return stream.getvalue()


def encode_sound(samples: NDArray[Any], sample_rate: int) -> tuple[str, bytes]:
    """Return media type and bytes of a sound, made as loud as it goes: what is far away is to be heard too."""
    import soundfile

    loudest = float(np.abs(samples).max(initial=0.0))
    samples = samples * (0.7 / loudest) if loudest > 0 else samples
    for kind, options in _SOUNDS:
        stream = io.BytesIO()
        try:
            soundfile.write(stream, samples, sample_rate, **options)
        except (soundfile.SoundFileError, ValueError, TypeError):
            continue  # this libsndfile cannot, or not at this rate
        return kind, stream.getvalue()
    raise DataError(f"a sound of {len(samples)} samples at {sample_rate} Hz cannot be written")
