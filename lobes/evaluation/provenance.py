"""Where a figure comes from: code, data, command, machine and cost, as they are at the end of a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lobes.errors import DataError

PACKAGES = ("torch", "torchaudio", "speechbrain", "transformers", "numpy", "scipy")


def git_state(folder: str | Path | None = None) -> dict[str, Any]:
    """Return `{"commit": hash or None, "dirty": bool or None}` of the repository around a folder.

    Parameters
    ----------
    folder : path, optional
        This package's own folder by default. Without git or outside a repository both values are None.
    """
    here = Path(folder) if folder is not None else Path(__file__).resolve().parent
    commit = git(here, "rev-parse", "HEAD")
    status = git(here, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if status is None else bool(status)}


def git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command prints, without white space around it; None where it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_state(data: Mapping[str, str | Path]) -> dict[str, dict[str, Any]]:
    """Return, for each named manifest, its SHA-256 and what its sidecar says of it.

    Parameters
    ----------
    data : dict of str to path
        Manifests by name, for example `{"test": "save/test.csv"}`; `test.meta.json` beside it is read when there.

    Returns
    -------
    dict
        Name to `{"file", "sha256", "generated", "hours", "source"}`; the last three None without a sidecar.

    Raises
    ------
    DataError
        If a manifest does not exist, or its sidecar is not JSON.
    """
    states = {}
    for name, location in data.items():
        path = Path(location)
        if not path.is_file():
            raise DataError(f"data[{name!r}]: {path} is not a file, expected a manifest; run the recipe's prepare step")
        meta = _sidecar(path.with_suffix(".meta.json"))
        states[name] = {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "generated": meta.get("generated"),
            "hours": meta.get("hours"),
            "source": meta.get("source"),
        }
    return states


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: not JSON ({error}), expected the manifest's sidecar; prepare the corpus again"
        ) from error
    return meta if isinstance(meta, dict) else {}


def portable_command(argv: Sequence[str] | None = None) -> str:
    """Return the command that started this program, as it can be typed on another machine.

    The script is given relative to its repository, `LOBES_DATA` and the home folder by their shell names.

    Example
    -------
    >>> portable_command(["train.py", "hparams/tiny.yaml", "--seed", "1"])
    'python train.py hparams/tiny.yaml --seed 1'
    """
    script, *arguments = list(sys.argv if argv is None else argv) or ["python"]
    if os.path.isabs(script):
        top = git(Path(script).parent, "rev-parse", "--show-toplevel")
        script = os.path.relpath(script, top) if top else os.path.basename(script)
    words = ["python", shlex.quote(script)]
    names = {"$LOBES_DATA": os.environ.get("LOBES_DATA", ""), "$HOME": os.path.expanduser("~")}
    for word in arguments:
        quoted = shlex.quote(word)
        for name, folder in names.items():
            if len(folder) > 1:
                quoted = quoted.replace(folder.rstrip("/"), name)
        words.append(quoted)
    return " ".join(words)


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """Return processor, usable cores, memory (GiB) and GPUs; torch is asked only where it is loaded already."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        memory = None
    return {"processor": _processor(), "cores": cores, "memory_gib": memory, "gpus": _gpus()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def _gpus() -> list[str]:
    cuda = _cuda()
    return [cuda.get_device_name(i) for i in range(cuda.device_count())] if cuda else []


def peak_memory() -> dict[str, float | None]:
    """Return the largest memory used so far, in MiB: `process` (resident, this process) and `cuda` (None without)."""
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        process: float | None = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    except ImportError:  # not on Windows
        process = None
    cuda = _cuda()
    return {
        "process": None if process is None else round(process, 1),
        "cuda": round(cuda.max_memory_allocated() / 2**20, 1) if cuda else None,
    }
