"""What a later reader needs to know to run an experiment again: versions, commit, uncommitted changes, command."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import torch

_GIT_SECONDS = 20


def git_commit(folder: Path) -> str:
    """Commit that `folder` is at, with ``+changes`` if there are uncommitted ones; empty outside of git."""
    commit = _git(folder, "rev-parse", "HEAD").strip()
    return commit + "+changes" if commit and _git(folder, "status", "--porcelain", "-uno").strip() else commit


def git_diff(folder: Path) -> str:
    """Uncommitted changes to tracked files, as a patch; empty outside of git."""
    return _git(folder, "diff", "HEAD", "--no-color")


def describe_environment(folder: Path) -> str:
    """Text for `env.log`: command, machine, Python, commit and the versions of all installed packages."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = {(dist.metadata["Name"] or "?", dist.version) for dist in importlib.metadata.distributions()}
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"python: {sys.version.split()[0]}",
        f"platform: {platform.platform()}",
        f"gpus: {', '.join(gpus) or 'none'}",
        f"cuda: {torch.version.cuda or 'none'}",
        f"git commit: {git_commit(folder) or 'unknown'}",
        "",
        *(f"{name}=={version}" for name, version in sorted(packages)),
    ]
    return "\n".join(lines) + "\n"


def _git(folder: Path, *arguments: str) -> str:
    """Output of git, empty if there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
