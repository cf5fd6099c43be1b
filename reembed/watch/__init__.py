"""The watch: is what the application reads still what everyone believes?"""

from reembed.watch.result import WatchResult
from reembed.watch.subject import Subject, subject_of
from reembed.watch.watcher import watch

__all__ = ["Subject", "WatchResult", "subject_of", "watch"]
