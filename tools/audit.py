"""`make audit`: are any of the locked packages known to be vulnerable?

    python tools/audit.py PIP_AUDIT LOCK...

Exit code 0: every package was looked up, and none is. 1: some are. 2: that cannot be told from
here: a source that answers "unknown package" for everything, as mirrors do, is no clean bill of
health.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

ARGUMENTS = ("--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off")


def audit(program: list[str], lock: str) -> tuple[int, str]:
    """Exit code and what to print for one lock."""
    done = subprocess.run(
        [*program, *ARGUMENTS, "-r", lock], capture_output=True, text=True, check=False
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return 2, (
            f"{lock}: not audited: pip-audit could not ask its source ({last})\n"
            "Run it where the Python package index can be reached; this says nothing about the "
            "packages."
        )
    hit = [one for one in found if one.get("vulns")]
    lines = [
        f"{lock}: {one['name']} {one['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw.get('fix_versions') or ['no version yet'])}"
        for one in hit for flaw in one["vulns"]
    ]  # fmt: skip
    if hit:
        return 1, "\n".join([*lines, "Run `make lock` for newer versions, and the tests."])
    unknown = [one["name"] for one in found if "skip_reason" in one]
    if unknown or not found:
        return 2, (
            f"{lock}: not audited: the source knows nothing of {len(unknown)} of {len(found)} "
            f"packages ({', '.join(unknown[:5])}...)\n"
            "It is probably a mirror without advisories: run this where the Python package "
            "index itself can be reached."
        )
    return 0, f"{lock}: none of {len(found)} packages has a known vulnerability"


def main() -> None:
    """Audit every lock that is named; the worst of them decides the exit code."""
    program, *locks = sys.argv[1:]
    worst = 0
    for lock in locks:
        code, told = audit(program.split(), lock)
        print(told)
        worst = 1 if 1 in (code, worst) else max(code, worst)
    sys.exit(worst)


if __name__ == "__main__":
    main()
