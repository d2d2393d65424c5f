"""From a command line to an experiment folder, and from an exception to an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from glob import escape, glob
from pathlib import Path
from typing import Any, NoReturn

import speechbrain as sb
import torch
from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.logger import get_logger, setup_logging
from speechbrain.utils.run_opts import RunOptions

from lobes.errors import ConfigError, LobesError
from lobes.export.leaf import is_leaf, leaf_document
from lobes.hyperyaml.tree import nearest
from lobes.training import provenance
from lobes.training.hparams import Hparams, HparamsFile
from lobes.training.parallel import on_main, rank
from lobes.training.rng import seed_cpu
from lobes.training.signals import EXIT_ERROR, EXIT_INTERRUPTED, RequeueAtOnce

logger = get_logger(__name__)

#: Seconds for torchrun to end the other processes when process 0 fails, before they report an error of their own.
_GRACE = 3.0


#: Top-level values that say what a run is of: a folder that holds a run with others is not gone on with. What else a
#: recipe's YAML has may change, which tests/recipes/test_recipe_hparams.py lists with the reason.
_IDENTITY = (
    "name", "seed",
    # What hears, how it is tuned, and what is put on it
    "encoder", "source_task", "untrained", "frozen", "faster", "mode", "adaptation", "control", "normalize_layers",
    "period", "piece_seconds", "head", "mapping", "embedding_dim", "parser", "sparsity",
    # What it is trained on
    "held_out", "target_language", "lexicon", "sample_rate", "transform", "max_seconds", "cut_seconds", "window",
    "train_hours", "train_clips", "train_takes", "folds", "n_folds", "valid_speakers",
    "strategy", "share", "filters", "cap", "cap_by", "scores", "unit_layer", "n_units",
    # What it is to say, and what it is told of its mistakes
    "label", "classes", "target", "tokenizer", "coding", "protocol", "teacher", "teacher_layers", "objective", "loss",
    "loss_over", "positive_weight", "parser_weight", "label_smoothing", "ctc_weight",
    # What comes back with a checkpoint, so that another value would do nothing
    "encoder_lr", "gate_lr", "opt_class",
    # What its checkpoints are kept by
    "metric", "select", "average_by", "valid_trials",
    # Last, since it is made of several of the above, which an error had better name
    "prepare",
)  # fmt: skip
#: Values of these that stand for each other: a recogniser's checkpoint is chosen by `cer`, whichever is asked for.
_ALIKE = {"metric": ("cer", "wer")}
#: Of these, what may name a leaf: a file, whose content counts and not its name alone.
_MODELS = ("encoder", "teacher")
#: What may change of these from one start to the next: where things are, how fast they are read, and what is for the
#: test alone.
_FREE = (
    "folder", "download", "n_jobs", "num_workers",
    "cut_seconds.test", "protocol.matching", "protocol.condition", "protocol.background", "protocol.probe",
)  # fmt: skip


class Options(RunOptions):
    """SpeechBrain's run options, without abbreviations, which would swallow misspelt hyperparameters."""

    @staticmethod
    def _create_parser() -> argparse.ArgumentParser:
        parser = RunOptions._create_parser()
        parser.allow_abbrev = False

        def refuse(message: str) -> NoReturn:
            raise ConfigError(f"command line: {message}; expected train.py hparams/FILE.yaml [--key=value …]")

        parser.error = refuse  # type: ignore[method-assign]
        return parser


def start_experiment(argv: Sequence[str] | None, caller_file: str) -> tuple[Hparams, RunOptions]:
    """Parse the command line, load the hyperparameters, join the other processes and make the output folder.

    The folder gets `hyperparams.yaml` (merged and overridden, references kept: a file to run again), a copy of
    the recipe, `env.log`, `git.diff` if there are uncommitted changes, `log.txt`, and `encoder.leaf.yaml` where the
    encoder is that of a leaf.

    Parameters
    ----------
    argv : sequence of str, optional
        ``hparams/tiny.yaml --key=value …``; by default what the program was called with. The path is relative to the
        current folder or to the recipe's.
    caller_file : str
        The recipe's ``__file__``.

    Returns
    -------
    hparams : Hparams
        The constructed hyperparameters.
    run_opts : RunOptions
        For the Brain.

    Raises
    ------
    ConfigError
        An option, the file or something in it is wrong; see `load_hparams`.
    """
    recipe = Path(caller_file).resolve()
    given = list(sys.argv[1:] if argv is None else argv)
    param_file, run_opts, overrides = Options.from_command_line_args(given)
    document = HparamsFile(_find(param_file, recipe.parent), overrides)
    run_opts = _join(_with_numbers(run_opts))
    seed = _seed(document)
    hparams = document.load()
    if rank() > 0:
        # Modules were built from the same seed everywhere; from here on each process draws its own dropout masks.
        seed_cpu(seed, rank())
    folder = hparams["output_folder"]
    leaves = on_main(_leaf_files, document)
    on_main(_check_folder, Path(folder), document, leaves)
    on_main(_make_folder, Path(folder), {"hyperparams.yaml": document.text, **leaves}, recipe, run_opts.log_config)
    return hparams, run_opts


def _leaf_files(document: HparamsFile) -> dict[str, str]:
    """Name of a file in the output folder -> what the leaf of an encoder or a teacher says; of all folds' together."""
    found = {}
    for key in _MODELS:
        source = document.get(key)
        if isinstance(source, str) and is_leaf(source):
            paths = [Path(source)]
            if "{fold}" in source:
                paths = [Path(name) for name in sorted(glob(escape(source).replace("{fold}", "*")))]
            found[f"{key}.leaf.yaml"] = "---\n".join(leaf_document(path) for path in paths)
    return found


def _check_folder(folder: Path, document: HparamsFile, leaves: Mapping[str, str] | None = None) -> None:
    """Refuse to go on with a run that was of something else, instead of mixing up the two."""
    kept = folder / "hyperparams.yaml"
    if not kept.is_file() or not any(folder.glob("**/CKPT+*")):
        return
    old = HparamsFile(kept)
    both = [key for key in _IDENTITY if key in old.tree and key in document.tree]
    before, now = (
        {path: value for key in both for path, value in plain_values(known.get(key), key).items()}
        for known in (old, document)
    )
    for path in {**now, **before}:
        values = [known.get(path, "null") for known in (before, now)]
        if values[0] != values[1] and not set(values) <= set(_ALIKE.get(path, ())):
            raise ConfigError(
                f"output_folder {folder}: holds a run with {path}={values[0]}, not {values[1]}; "
                "give another --output_folder or --name, or delete it"
            )
    for name, text in (leaves or {}).items():
        if (folder / name).is_file() and (folder / name).read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"output_folder {folder}: holds a run with another content of {document.get(name.split('.')[0])}, "
                f"which is kept as {name}; give another --output_folder or --name, or delete it"
            )


def plain_values(value: Any, path: str) -> dict[str, str]:
    """What a part of a file says, by dotted path: plain values, and tags with the parts that they are given."""
    if path.endswith(_FREE):
        return {}
    tag = str(getattr(getattr(value, "tag", None), "value", None) or "")
    if isinstance(value, Mapping):
        found = {
            name: part for key, item in value.items() for name, part in plain_values(item, f"{path}.{key}").items()
        }
        return {path: tag, **found} if tag else found
    if isinstance(value, list):
        return {path: "[" + ", ".join(" ".join(plain_values(item, "").values()) for item in value) + "]"}
    if value is None and not tag:
        return {path: "null"}
    text = str(getattr(value, "value", value))
    return {path: f"{tag} {text}".strip()}


def _find(param_file: str, recipe_folder: Path) -> Path:
    """The hyperparameter file, relative to the current folder or to the recipe's."""
    for path in (Path(param_file), recipe_folder / param_file):
        if path.is_file():
            return path
    known = [str(path.relative_to(recipe_folder)) for path in sorted((recipe_folder / "hparams").glob("*.yaml"))]
    hint = nearest(param_file, known) or (f"; this recipe has {', '.join(known)}" if known else "")
    raise ConfigError(f"{param_file}: no such file here or in {recipe_folder}{hint}")


def _with_numbers(run_opts: RunOptions) -> RunOptions:
    """SpeechBrain reads --optimizer_step_limit as text."""
    limit = run_opts.optimizer_step_limit
    if not isinstance(limit, str):
        return run_opts
    if not limit.isdecimal():
        raise ConfigError(f"command line: optimizer_step_limit is '{limit}', expected a whole number of steps")
    return dataclasses.replace(run_opts, optimizer_step_limit=int(limit))


def _join(run_opts: RunOptions) -> RunOptions:
    """Join the process group of a torchrun, with gloo where there is no CUDA."""
    on_cpu = not torch.cuda.is_available() or run_opts.device == "cpu"
    if on_cpu and run_opts.distributed_backend == "nccl":
        overridden = {*run_opts.overridden_args, "distributed_backend"}
        run_opts = dataclasses.replace(run_opts, distributed_backend="gloo", overridden_args=overridden)
    if not torch.distributed.is_initialized():
        try:
            sb.utils.distributed.ddp_init_group(run_opts)
        except ValueError as error:
            raise ConfigError(
                f"torchrun: {' '.join(str(error).split())}; this machine has {torch.cuda.device_count()} GPU(s)"
            ) from error
    return run_opts


def _seed(document: HparamsFile) -> int:
    seed = document.get("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"{document.path}: seed is {seed!r}: expected a whole number, 0 or more")
    sb.utils.seed.seed_everything(seed, verbose=False)
    return seed


def _make_folder(folder: Path, texts: Mapping[str, str], recipe: Path, log_config: str | None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for key in _MODELS:
            (folder / f"{key}.leaf.yaml").unlink(missing_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if recipe.is_file():
            shutil.copy(recipe, folder)
        (folder / "env.log").write_text(provenance.describe_environment(recipe.parent), encoding="utf-8")
        diff = provenance.git_diff(recipe.parent)
        (folder / "git.diff").unlink(missing_ok=True)
        if diff:
            (folder / "git.diff").write_text(diff, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"output_folder {folder} cannot be written: {error}; give another --output_folder") from error
    handlers = {"file_handler": {"filename": str(folder / "log.txt")}}
    setup_logging(log_config or DEFAULT_LOG_CONFIG, {"handlers": handlers})
    logger.info(f"experiment folder {folder}")


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a recipe's `main` and leave the program with an exit code that scripts can tell apart.

    A `LobesError` is printed as one line on standard error, with code 2; its traceback is in `log.txt`. Being
    stopped gives 85 (`EXIT_REQUEUE`), Ctrl-C 130, and other errors their traceback and 1.

    Parameters
    ----------
    main : callable
        The recipe, without arguments.
    """
    code: int | str | None = 0
    try:
        with RequeueAtOnce():
            main()
    except LobesError as error:
        code = EXIT_ERROR
        _report(error)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except SystemExit as leaving:
        code = leaving.code
    finally:
        sys.stdout.flush()
        if torch.distributed.is_available() and torch.distributed.is_initialized() and sys.exc_info()[0] is None:
            torch.distributed.destroy_process_group()
    raise SystemExit(code)


def _report(error: LobesError) -> None:
    """Print one line; processes other than 0 do so only if they are left alone with the error."""
    number = int(os.environ.get("RANK", 0))
    logging.getLogger(__name__).debug("the error was raised here", exc_info=error)
    message = " ".join(str(error).split())
    if number > 0:
        time.sleep(_GRACE)
        message = f"[process {number}] {message}"
    print(f"error: {message}", file=sys.stderr, flush=True)
