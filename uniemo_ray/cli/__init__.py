"""The `uniemo` command. Nothing heavy is imported before a command needs it."""

from uniemo_ray.cli.app import main

__all__ = ["main"]
