"""A training stage on Ray Train: its driver, its data and its ranks."""
