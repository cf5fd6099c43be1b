"""The command line: one function a command, and what it prints."""

from reembed.cli.app import app, main

__all__ = ["app", "main"]
