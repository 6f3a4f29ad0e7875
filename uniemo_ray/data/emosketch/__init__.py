"""EmoSketch: a generated image-emotion benchmark whose best possible result is known exactly.

Its labels are a rule drawn from EmoSet-118K's attribute statistics, not human ratings of these
pictures.
"""
