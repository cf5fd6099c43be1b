"""The program `reembed`, and `python -m reembed` for where the script is not on PATH."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from reembed.errors import PreflightError, refuse_windows


def main() -> NoReturn:
    """Run the command line, where it can run at all."""
    try:
        refuse_windows()
    except PreflightError as error:  # before the imports, which end in a traceback there
        if "--json" in sys.argv[1:]:
            print(json.dumps({"error": error.to_dict()}))
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    from reembed.cli import main as begin

    begin()


if __name__ == "__main__":
    main()
