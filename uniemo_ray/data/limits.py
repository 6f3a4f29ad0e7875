"""What is refused without a look at its pixels."""

MAX_PIXELS = 50_000_000
"""Width x height of an image where nobody asks for more (`data.max_pixels`)."""
