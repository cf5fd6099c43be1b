"""`python -m reembed`: the command line, for where the script `reembed` is not on PATH."""

from reembed.cli import main

if __name__ == "__main__":
    main()
