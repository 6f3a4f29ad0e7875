"""Baselines of understanding: image to emotion."""
