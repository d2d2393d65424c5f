"""The errors that a user can act on: one line each, naming the field, the value, what was expected and the remedy."""

from __future__ import annotations


class LobesError(Exception):
    """Base of every error that is the user's to mend; `lobes.training.run` prints it as one line and exits with 2."""


class ConfigError(LobesError):
    """A hyperparameter file, a key in it, or an override on the command line is wrong."""


class DataError(LobesError):
    """A corpus folder, a manifest or an audio file is not what was expected."""


class CheckpointError(LobesError):
    """A checkpoint or a saved encoder does not fit the model that should load it."""
