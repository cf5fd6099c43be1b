"""What `make demo` runs: a real collection moved to another model, back, and forward again.

It builds a Chroma collection of about 2,000 docstrings of Python's standard library, embedded with
WordLlama (256 dimensions), and moves it to MiniLM (384) with `demo.yaml` beside this file, by the
commands that you would type. Before and after each step it asks the collection the same questions,
with Chroma's own client, as an application would.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo"
DATABASE = WORK / "chroma"
LIVE = "docs"
MANIFEST = "manifests/demo.yaml"

QUESTIONS = (
    "how do I read a csv file?",
    "read the settings of an ini file",
    "guess the type of a file from its name",
    "put text into a zip archive",
    "average of a list of numbers",
    "parse command line arguments",
)
ANSWERS = 3

console = Console()


# The corpus: text that every machine with Python has.

SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data",
           "ensurepip", "encodings", "distutils", "msilib"}  # fmt: skip
MIN_WORDS, MAX_WORDS = 18, 150
"""Shorter docstrings ("Return the value.") do not say what they are about; longer ones are whole
manuals, and a demo should be short."""


@dataclass(frozen=True)
class Docstring:
    """One record: `id` is `module:qualified.name`, or the module's name alone."""

    id: str
    text: str
    metadata: dict[str, str | int | bool]


def corpus(stdlib: Path) -> list[Docstring]:
    """The docstrings of the public modules, classes and functions under `stdlib`, ordered by id.

    The files are parsed, never imported, so nothing of them runs.
    """
    found: dict[str, Docstring] = {}
    for path in sorted(stdlib.rglob("*.py")):
        parts = path.relative_to(stdlib).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        if any(name in SKIPPED or name.startswith(("_", "config-")) for name in names):
            continue
        tree = ast.parse(path.read_bytes())
        for record in _docstrings(tree, ".".join(names), "", "module"):
            found.setdefault(record.id, record)
    return [found[id] for id in sorted(found)]


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _docstrings(node: Documented, module: str, name: str, kind: str) -> Iterator[Docstring]:
    text = ast.get_docstring(node)
    if text and MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        yield Docstring(
            f"{module}:{name}" if name else module,
            text,
            {
                "module": module,
                "name": name or module,
                "kind": kind,
                "lines": len(text.splitlines()),
                "has_example": ">>> " in text,
            },
        )
    if kind in ("function", "method"):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            inner = "class"
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = "method" if kind == "class" else "function"
        else:
            continue
        if not child.name.startswith("_"):
            yield from _docstrings(
                child, module, f"{name}.{child.name}" if name else child.name, inner
            )


def build() -> int:
    """Make a new collection of the corpus, embedded by Chroma with WordLlama, and count it."""
    import chromadb

    from reembed.manifest import Model
    from reembed.stores.chroma.function import ReembedEmbeddingFunction

    records = corpus(Path(sysconfig.get_path("stdlib")))
    # Chroma's own annotations expect a function for pictures too.
    function: Any = ReembedEmbeddingFunction(Model(provider="static", name="wordllama"))
    collection = chromadb.PersistentClient(str(DATABASE)).create_collection(
        LIVE, embedding_function=function, configuration={"hnsw": {"space": "cosine"}}
    )
    collection.add(
        ids=[record.id for record in records],
        documents=[record.text for record in records],
        metadatas=[record.metadata for record in records],
    )
    return len(records)


# The questions, asked as an application asks them.


@dataclass(frozen=True)
class Answers:
    """What the live name answers: the model behind it, and for each question the ids found."""

    model: str
    dimensions: int
    ids: list[list[str]]


def ask() -> Answers:
    """Open the live name with Chroma's own client and let it embed and answer the questions."""
    import chromadb

    from reembed import live

    live.trust(MANIFEST)  # the models are packages here, for which a store's word is not enough
    collection = chromadb.PersistentClient(str(DATABASE)).get_collection(LIVE)
    found = collection.query(query_texts=list(QUESTIONS), n_results=ANSWERS, include=[])
    sample = collection.peek(1)["embeddings"]
    function: Any = collection.configuration["embedding_function"]
    assert sample is not None
    return Answers(str(function.get_config()["name"]), len(sample[0]), found["ids"])


def ask_anew() -> Answers:
    """`ask` in a process of its own, as an application that starts now."""
    return Answers(**_in_new_process("ask"))


def side_by_side(before: Answers, after: Answers) -> Table:
    """A table of the questions with both models' answers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for when, answers in (("before", before), ("after", after)):
        model = answers.model.removeprefix("package:")
        table.add_column(f"{when}: {model}, {answers.dimensions}-d", ratio=1, no_wrap=True)
    for question, old, new in zip(QUESTIONS, before.ids, after.ids, strict=True):
        table.add_row(f"[bold cyan]{question}[/]")
        table.add_row("\n".join(old), "\n".join(new), end_section=True)
    return table


# The demo itself.


def _in_new_process(step: str) -> Any:
    """The result of `build` or `ask`. A process that ends leaves no Chroma database open."""
    done = subprocess.run(
        [sys.executable, __file__, step], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def run(*arguments: str) -> None:
    """Show a `reembed` command, run it, and stop the demo if it fails."""
    console.print()
    console.print(Rule(f"[bold]$ {shlex.join(('reembed', *arguments))}", align="left"))
    command = Path(sys.executable).with_name("reembed")
    code = subprocess.run([str(command), *arguments], cwd=ROOT).returncode
    if code:
        console.print(f"[red]The command ended with exit code {code}; the demo stops here.")
        sys.exit(code)


def check(what: str, holds: bool) -> None:
    """Print a statement that must hold, and stop the demo if it does not."""
    console.print(f"[green]✓[/] {what}" if holds else f"[red]✗ not so:[/] {what}")
    if not holds:
        sys.exit(1)


def main() -> None:
    """Build, plan, run, swap, roll back, swap again."""
    started = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)

    count = _in_new_process("build")
    console.print(
        f"Built the Chroma collection [bold]{LIVE}[/] in {os.path.relpath(DATABASE)}: "
        f"{count:,} docstrings of Python's standard library."
    )
    old = ask_anew()

    run("plan", MANIFEST)
    run("run", MANIFEST)
    check(f"until now nobody noticed: {LIVE!r} answers as before", ask_anew() == old)

    run("swap", MANIFEST, "--yes")
    new = ask_anew()
    check(f"{LIVE!r} is answered by the new model", new.dimensions == 384)
    console.print(side_by_side(old, new))

    run("rollback", MANIFEST, "--yes")
    check(f"{LIVE!r} answers as in the beginning", ask_anew() == old)

    run("swap", MANIFEST, "--yes")
    check(f"{LIVE!r} answers as the new model did", ask_anew() == new)
    console.print(
        f"\nDone in {time.monotonic() - started:.0f} seconds. All of it is in "
        f"{os.path.relpath(WORK)}; look around with `.venv/bin/reembed status {MANIFEST}`."
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build"]:
            print(json.dumps(build()))
        case ["ask"]:
            print(json.dumps(asdict(ask())))
        case _:
            main()
