"""Metrics of the paper (section 6) as pure functions and small accumulators that merge."""
