"""How the shipped tiny base models are trained, packed and measured.

They know EmoSketch's pictures and words and nothing of emotion, as CLIP and Stable Diffusion do.
"""
