"""The watch: is what the application reads still what everyone believes?"""

from reembed.commands.watch.result import WatchResult
from reembed.commands.watch.subject import Subject, subject_of
from reembed.commands.watch.watcher import Orders, watch, watch_every

__all__ = ["Orders", "Subject", "WatchResult", "subject_of", "watch", "watch_every"]
