"""HyperPyYAML files as trees: bases, includes and overrides merged, names and calls checked, before anything is built.

`lobes.training.hparams` says what a file may hold; a leaf, such as an encoder, is a part that stands for itself.
"""
