"""The steps of the feedback loop.

Each takes a `StepContext`, does its work where Ray has room for it, and returns what later steps need.
"""
