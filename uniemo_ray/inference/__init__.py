"""Callable classes over a trained model: generate, score, understand. No Ray in here."""
