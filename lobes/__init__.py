"""Efficient self-supervised audio, as parts that plug into SpeechBrain recipes."""

__version__ = "0.1.0"
