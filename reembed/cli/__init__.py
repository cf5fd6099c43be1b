"""The command line: one function a command, and what it prints."""

from reembed.cli import auditing as _auditing  # registers its commands
from reembed.cli import backups as _backups
from reembed.cli import looks as _looks
from reembed.cli import trying as _trying
from reembed.cli import watching as _watching
from reembed.cli.app import app
from reembed.cli.entry import main

__all__ = ["app", "main"]

_ = _auditing, _backups, _looks, _trying, _watching
