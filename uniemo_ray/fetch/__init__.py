"""Weights from a model hub into the local layout that every job reads. The only code that uses a network."""
