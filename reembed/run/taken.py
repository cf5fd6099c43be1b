"""What a run takes of its machine: bytes on disks, and memory."""

from __future__ import annotations

import sys
from pathlib import Path


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(file_bytes(path) for path in folder.rglob("*"))


def file_bytes(path: Path) -> int:
    """Of a file; 0 where it is gone meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def peak_bytes() -> int:
    """The most memory that this process has held so far; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
