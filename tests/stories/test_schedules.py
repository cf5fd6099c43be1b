"""manifests/schedules: each file is what its scheduler takes, does the right thing when a step
fails, and every command line in it works."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import reembed.commands.watch
from reembed.manifest import Manifest
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.manifests import manifest_data
from tests.support.texts import CASES

FOLDER = Path(__file__).resolve().parents[2] / "manifests" / "schedules"
SCHEMAS = {
    "compose.yaml": "vendor.compose-spec",
    "github-actions.yml": "vendor.github-workflows",
    "gitlab-ci.yml": "vendor.gitlab-ci",
}
COMMANDS = "backup|prune|drill|run|report|watch"
JOBS = ["cron", "github", "gitlab", "kubernetes", "compose", "systemd"]


@dataclass(frozen=True)
class Step:
    """One script of a job. `always`: whether it runs after a step that failed."""

    script: str
    always: bool = False


def text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def parsed(name: str) -> Any:
    return yaml.safe_load(text(name))


def cron_lines() -> list[str]:
    """The commands of the crontab, without the times and the user."""
    lines = [line for line in text("reembed.cron").splitlines() if re.match(r"[\d*]", line)]
    for line in lines:
        times, user = line.split()[:5], line.split()[5]
        assert all(re.fullmatch(r"\*(/\d+)?|\d+", one) for one in times), line
        assert user == "reembed" and "%" not in line, "cron ends a command at a %"
    return [line.split(None, 6)[6] for line in lines]


def units(name: str) -> list[tuple[str, str]]:
    """Keys and values of a unit file."""
    return re.findall(r"^(\w+)=(.*)$", text(name), re.MULTILINE)


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text("kubernetes-cronjob.yaml")))


def container() -> Any:
    (job,) = [one for one in kubernetes() if one["kind"] == "CronJob"]
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]


def steps(job: str) -> list[Step]:
    """What a job of a scheduler does in one night."""
    if job == "cron":
        night, week, quarter = cron_lines()
        return [Step(night), Step(week), Step(quarter, always=True)]
    if job == "github":
        found = parsed("github-actions.yml")["jobs"]["nightly"]["steps"]
        return [
            Step(f"set -eo pipefail\n{one['run']}", "always()" in one.get("if", ""))
            for one in found if "run" in one
        ]  # fmt: skip
    if job == "gitlab":
        one = parsed("gitlab-ci.yml")["reembed-nightly"]
        return [Step("\n".join(["set -eo pipefail", *one["before_script"], *one["script"]]))]
    if job == "kubernetes":
        assert container()["command"] == ["/bin/sh", "-c"]
        return [Step(*container()["args"])]
    if job == "compose":
        (script,) = parsed("compose.yaml")["services"]["nightly"]["command"]
        return [Step(script.replace("$$", "$"))]
    lines = units("reembed-nightly.service")
    return [Step(value.replace("%%", "%")) for key, value in lines if key == "ExecStart"] + [
        Step(value, always=True) for key, value in lines if key == "ExecStopPost"
    ]


STUB = """#!/bin/sh
printf '%s\\n' "$*" >> "$CALLS"
case " $FAIL " in *" $1 "*) echo "$1 failed"; exit 4 ;; esac
"""


class Place:
    """A machine on which a job runs: /srv/app and the like are folders of a test."""

    def __init__(self, folder: Path, program: Path | None = None) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        stubs = folder / ".venv" / "bin"
        stubs.mkdir(parents=True)
        for name in ("reembed", "pip"):
            path = stubs / name
            if program is not None and name == "reembed":
                path.symlink_to(program)
                continue
            path.write_text(STUB)
            path.chmod(0o755)
        (folder / "env").write_text("PGPASSWORD=x\n")
        self.env = os.environ | {
            "PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(self.calls),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }  # fmt: skip

    def here(self, script: str) -> str:
        """A script with the paths of this place."""
        for path in ("/srv/app", "/etc/reembed"):
            script = script.replace(path, str(self.folder))
        return script.replace("/var/lib/reembed", str(self.folder / ".reembed"))

    def run(self, found: list[Step], fail: str = "") -> tuple[bool, str]:
        """Whether all steps came through, and what was printed."""
        fine, printed = True, ""
        for step in found:
            if not fine and not step.always:
                continue
            done = subprocess.run(
                ["bash" if "pipefail" in step.script else "sh", "-c", self.here(step.script)],
                cwd=self.folder, env=self.env | {"FAIL": fail}, capture_output=True, text=True,
            )  # fmt: skip
            printed += done.stdout + done.stderr
            fine = fine and done.returncode == 0
        return fine, printed

    def called(self) -> list[str]:
        """Command lines of `reembed` so far, which are then forgotten."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("install")]

    def night(self) -> list[str]:
        """The commands so far, but for reports and what is done on some days alone."""
        names = [line.split()[0] for line in self.called()]
        return [name for name in names if name not in ("report", "drill")]


@pytest.mark.parametrize("job", JOBS)
def test_what_fails_stops_what_builds_on_it_and_never_the_watch(job: str, tmp_path: Path) -> None:
    place, found = Place(tmp_path), steps(job)
    fine, _ = place.run(found)
    assert fine and place.night() == ["backup", "prune", "run", "watch"]
    fine, _ = place.run(found, "backup")
    assert not fine, "a scheduler sees it"
    assert place.night() == ["backup", "watch"], "nothing is built on what could not be backed up"
    fine, _ = place.run(found, "run")
    assert not fine and any(line.startswith("watch") for line in place.called())
    fine, printed = place.run(found, "watch")
    assert not fine or (job == "cron" and "watch failed" in printed), "cron mails what is printed"


def command_lines() -> list[str]:
    """Every command line of `reembed` in the folder, each once."""
    found: list[str] = []
    for job in JOBS:
        for step in steps(job):
            found += re.findall(rf"(?:^|[\s/])reembed ((?:{COMMANDS}) [^|&>;'\n]*)", step.script)
    for service in parsed("compose.yaml")["services"].values():
        if "command" in service and "entrypoint" not in service:
            found.append(" ".join(service["command"]))
    found += [value.partition("/reembed ")[2] for name in ("reembed-watch.service",)
              for key, value in units(name) if key == "ExecStart"]  # fmt: skip
    lines = [re.sub(r"\s+2?$", "", line) for line in found]
    order = {"backup": 0, "prune": 1, "drill": 2, "run": 3, "watch": 4, "report": 5}
    return sorted(dict.fromkeys(lines), key=lambda line: order[line.split()[0]])


@pytest.fixture
def app(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as /srv/app, with a following job that was run once by hand."""
    with chroma(tmp_path / "chroma_db") as client:
        plain_collection(client)
    shutil.copy(CASES / "counting_model.py", tmp_path)
    data = manifest_data("chroma:./chroma_db", name="nightly", verify={"margin": 0.5})
    data |= {"mode": "follow", "watch": {"backups": "./.reembed/backups"}}
    data["target"] = {"collection": "search"}
    (tmp_path / "nightly.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REEMBED_NOTIFY", "json://127.0.0.1:1/")
    first = command("run", "nightly.yaml", "--swap")
    assert first.code == 0, first.err
    return tmp_path


def test_every_command_line_works(
    command: Command, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reembed.commands.watch.watch_every

    def one_cycle(seconds: float, subject: Any, told: Callable[[Any], None]) -> None:
        stop = threading.Event()

        def told_once(result: Any) -> None:
            told(result)
            stop.set()

        real(seconds, subject, told_once, stop)

    monkeypatch.setattr(reembed.commands.watch, "watch_every", one_cycle)
    lines = command_lines()
    assert len(lines) > 12, lines
    for line in lines:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        here = (
            line.replace("/etc/reembed/", "").replace("/var/lib/reembed", ".reembed")
            .replace("chroma+http://chroma:8000", "chroma:./chroma_db").replace("9187", str(port))
        )  # fmt: skip
        done = command(*here.split())
        assert done.code == 0, f"{line}: {done.out}{done.err}"


@pytest.mark.long
@pytest.mark.parametrize("job", JOBS)
def test_a_whole_night_of_each_scheduler(job: str, app: Path) -> None:
    """With the real command in the place of a stub."""
    place = Place(app, Path(sys.executable).with_name("reembed"))
    fine, printed = place.run(steps(job))
    assert fine, printed
    assert list((app / ".reembed" / "nightly").glob("*/verdict.json"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_of_its_scheduler_takes_it(name: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name]]
    done = subprocess.run([*arguments, FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / name
    wrong.write_text(text(name).replace("image:", "imago:").replace("runs-on:", "runs-off:"))
    done = subprocess.run([*arguments, wrong], capture_output=True, text=True)
    assert done.returncode == 1, "the schema is asked"


def test_kubernetes_takes_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import kubernetes_validate

    found = kubernetes()
    for one in found:
        kubernetes_validate.validate(one, "1.30", strict=True)
    (job,) = [one for one in found if one["kind"] == "CronJob"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert {"requests", "limits"} <= container()["resources"].keys()
    assert container()["envFrom"] == [{"secretRef": {"name": "reembed"}}]
    mounted = {one["mountPath"] for one in container()["volumeMounts"]}
    (config,) = [one for one in found if one["kind"] == "ConfigMap"]
    manifest = Manifest.parse(yaml.safe_load(config["data"]["nightly.yaml"]), Path("/etc/reembed"))
    assert manifest.state in mounted and str(manifest.watch.backups).startswith(manifest.state)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    names = ["reembed-nightly.service", "reembed-nightly.timer", "reembed-watch.service"]
    for name in names:
        assert re.search(r"^\[Unit\]$", text(name), re.MULTILINE)
        unit = text(name).replace("/srv/app/.venv/bin/reembed", "/bin/true")
        (tmp_path / name).write_text(unit.replace("User=reembed", "User=root"))
    assert dict(units("reembed-nightly.service"))["Type"] == "oneshot"
    if shutil.which("systemd-analyze") is None:
        return  # nothing here can say more
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in names)],
        capture_output=True, text=True, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "reembed" in line]
    assert not ours, ours


def test_the_image_installs_extras_that_there_are() -> None:
    (named,) = re.findall(r"reembed-pipeline\[([\w,-]+)\]", text("Dockerfile"))
    known = metadata("reembed-pipeline").get_all("Provides-Extra") or []
    assert set(named.split(",")) <= set(known)
    both = text("github-actions.yml") + text("gitlab-ci.yml")
    for one in re.findall(r"reembed-pipeline\[([\w,-]+)\]", both):
        assert set(one.split(",")) <= set(known)


def test_the_image_may_write_to_the_volumes_that_compose_gives_it() -> None:
    (made,) = re.findall(r"^RUN install .*--owner=reembed .*", text("Dockerfile"), re.MULTILINE)
    (user,) = re.findall(r"^USER (\d+)$", text("Dockerfile"), re.MULTILINE)
    assert f"useradd --uid {user} --create-home reembed" in text("Dockerfile")
    services = parsed("compose.yaml")["services"].values()
    volumes = {volume for one in services if one["image"] == "reembed" for volume in one["volumes"]}
    written = {volume.split(":")[1] for volume in volumes if not volume.endswith(":ro")}
    assert written == {"/srv/app/.reembed"} and written <= set(made.split())


def test_ci_runs_one_at_a_time_and_keeps_the_run_directory() -> None:
    github, gitlab = parsed("github-actions.yml"), parsed("gitlab-ci.yml")["reembed-nightly"]
    assert github["concurrency"] == {"group": "reembed-nightly", "cancel-in-progress": False}
    uses = [one.get("uses", "") for one in github["jobs"]["nightly"]["steps"]]
    for action in ("actions/cache/restore@", "actions/cache/save@", "actions/upload-artifact@"):
        assert any(one.startswith(action) for one in uses), action
    assert gitlab["resource_group"] == "reembed-nightly"
    assert gitlab["cache"] == {"key": "reembed-nightly", "paths": [".reembed/"], "when": "always"}
    assert gitlab["artifacts"]["paths"] == ["report.html"]
