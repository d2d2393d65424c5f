"""Sonic Visualiser's annotation layers (`.svl`): XML of points in sample frames.

A layer of regions has points of a frame, a duration in frames, a value and a label; a layer of boxes, which lie on a
spectrogram, has also an extent: the value is then the lower frequency in Hz and the extent the width of the band. A
layer of time instants has no durations. A session (`.sv`) is another thing, and compressed: export the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable
from lobes.dataio.annotations.text import number, read_lines, short
from lobes.errors import ConfigError, DataError

_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE sonic-visualiser>\n<sv>\n  <data>\n'
_KNOWN = ("frame", "duration", "label", "value", "extent")
#: Unit of the values of regions that are scores, as we write them.
_SCORE = "score"


def is_svl(first_line: str) -> bool:
    """Whether a file's first line is that of XML."""
    return first_line.lstrip().startswith(("<?xml", "<sv>", "<!DOCTYPE sonic-visualiser"))


def read_svl(path: Path) -> AnnotationTable:
    """Read the points of all layers of a file; `read_annotations` says more."""
    text = "\n".join(read_lines(path))
    if "<!ENTITY" in text:  # which Sonic Visualiser never writes, and which can be made to fill the memory
        raise DataError(f"{path} declares XML entities: expected a layer as Sonic Visualiser exports it")
    try:
        # Not bytes: the text is decoded already, so a declared encoding must not be applied again.
        root = ElementTree.fromstring(text.partition("?>")[2] if text.lstrip().startswith("<?xml") else text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is no XML ({error}): export the layer again, as .svl") from error
    models = {model.get("dataset"): model for model in root.iter("model") if model.get("dataset") is not None}
    if not models:
        raise DataError(f"{path} holds no layer of annotations: export a layer of regions, boxes or time instants")
    annotations = []
    for dataset in root.iter("dataset"):
        model = models.get(dataset.get("id"))
        if model is None:
            raise DataError(f"{path}: dataset {dataset.get('id')} belongs to no model, so its sample rate is unknown")
        annotations += [_annotation(point, model, path) for point in dataset.iter("point")]
    return AnnotationTable(annotations, "svl")


def write_svl(annotations: Sequence[Annotation], sample_rate: int | None) -> str:
    """Return the text of a layer; `write_annotations` says more.

    The layer is one of boxes where every annotation has a band, else one of regions, whose value is the score.
    """
    if sample_rate is None or not sample_rate > 0:
        raise ConfigError(
            f"sample_rate is {sample_rate}: an .svl counts in samples, so pass the recording's sample rate in Hz"
        )
    boxes = bool(annotations) and all(a.low_hz is not None and a.high_hz is not None for a in annotations)
    points = [_point(annotation, sample_rate, boxes) for annotation in annotations]
    ends = [round(annotation.end * sample_rate) for annotation in annotations]
    scored = any(a.score is not None for a in annotations)
    kind = (
        'dimensions="2" subtype="box" units="Hz"'
        if boxes
        else f'dimensions="3" subtype="region" units="{_SCORE if scored else ""}"'
    )
    layer = "boxes" if boxes else "regions"
    return (
        f'{_HEADER}    <model id="1" name="" sampleRate="{sample_rate}" start="0" end="{max(ends, default=0)}" '
        f'type="sparse" resolution="1" notifyOnAdd="true" dataset="0" {kind} />\n'
        f'    <dataset id="0" dimensions="{2 if boxes else 3}">\n{"".join(points)}    </dataset>\n  </data>\n'
        f'  <display>\n    <layer id="2" type="{layer}" name="{layer.title()}" model="1" />\n  </display>\n</sv>\n'
    )


def _annotation(point: ElementTree.Element, model: ElementTree.Element, path: Path) -> Annotation:
    def read(element: ElementTree.Element, name: str, missing: str | None = None) -> float:
        text = element.get(name, missing)
        if text is None:
            raise DataError(f"{path}: a <{element.tag}> has no {name}: export the layer again")
        return number(text, str(path), f"{name} of a <{element.tag}>")

    rate = read(model, "sampleRate")
    if not rate > 0:
        raise DataError(f"{path}: sampleRate is {rate:g}: expected Hz, a positive number")
    start = read(point, "frame") / rate
    band: tuple[float | None, float | None] = (None, None)
    score = None
    extra = {name: text for name, text in point.items() if name not in _KNOWN}
    if "extent" in point.keys() or model.get("subtype") == "box":
        low = read(point, "value")
        band = (low, low + read(point, "extent", "0"))
    elif model.get("units") == _SCORE:
        score = read(point, "value") if "value" in point.keys() else None
    elif "value" in point.keys():
        extra["value"] = point.get("value", "")
    end = (read(point, "frame") + read(point, "duration", "0")) / rate
    return Annotation(start, end, point.get("label", ""), *band, score=score, extra=extra)


def _point(annotation: Annotation, sample_rate: int, boxes: bool) -> str:
    frame = round(annotation.start * sample_rate)
    duration = round(annotation.end * sample_rate) - frame
    if boxes:
        low, high = annotation.low_hz or 0.0, annotation.high_hz or 0.0
        value = f'value="{short(low)}" duration="{duration}" extent="{short(high - low)}"'
    else:
        given = annotation.extra.get("value", "0") if annotation.score is None else short(annotation.score)
        value = f'value={quoteattr(given)} duration="{duration}"'
    return f'      <point frame="{frame}" {value} label={quoteattr(annotation.label)} />\n'
