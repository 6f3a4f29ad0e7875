"""Trainers of what the package ships; they are not part of it."""
