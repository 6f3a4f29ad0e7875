"""The tiny base models: how they are trained, packed and measured, and where they lie.

They know EmoSketch's pictures and words and nothing of emotion, as CLIP and Stable Diffusion do.
"""
