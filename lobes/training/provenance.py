"""What a later reader needs to know to run an experiment again: versions, commit, uncommitted changes, command."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

import torch

from lobes.evaluation.provenance import git, git_state


def git_diff(folder: Path) -> str:
    """Uncommitted changes to tracked files, as a patch; empty outside of git."""
    patch = git(folder, "diff", "HEAD", "--no-color")
    return f"{patch}\n" if patch else ""


def describe_environment(folder: Path) -> str:
    """Text for `env.log`: command, folder, machine, Python, commit and the versions of all installed packages."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = {(dist.metadata["Name"] or "?", dist.version) for dist in importlib.metadata.distributions()}
    state = git_state(folder)
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"folder: {Path.cwd()}",
        f"python: {sys.version.split()[0]}",
        f"platform: {platform.platform()}",
        f"gpus: {', '.join(gpus) or 'none'}",
        f"cuda: {torch.version.cuda or 'none'}",
        f"git commit: {state['commit'] or 'unknown'}{'+changes' if state['dirty'] else ''}",
        "",
        *(f"{name}=={version}" for name, version in sorted(packages)),
    ]
    return "\n".join(lines) + "\n"
