"""The tools that do the job, each by the commands that its own documentation gives.

A command is bash. It finds $BIN (the programs of the tool's environment), $HERE (this folder),
$STORE (a Chroma folder), $CHROMA_PORT (of a server on it), $VECSHIFT_DSN (a database) and
$OPENAI_BASE_URL with a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MODEL = "text-embedding-3-small"


@dataclass(frozen=True)
class Tool:
    """A tool and how it is asked to do the job.

    Attributes:
        name: in the table.
        package: as pip knows it, and the name of its environment; none of ours.
        store: `chroma` or `postgres`.
        does: what it does with the collection.
        well: what it does well, besides.
        command: does the job in a folder of its own.
        made: the collection it makes, or the table and the column; none if it makes nothing.
        files: written into the folder before, by name; `$URL` is the server's address.
        again: the command after a kill; the same, if none.
        where: the folder with it.
        released: the month of this version.
        serve: whether it works through a Chroma server.
        fixes: what a fresh installation needed before it worked, in words.
        ends: exit codes that mean it has done all it can; reembed's 3: some records were left out.
        embeds: whether every text goes to the model.
    """

    name: str
    store: str
    does: str
    command: str
    made: str
    well: str = ""
    package: str = ""
    files: dict[str, str] = field(default_factory=dict)
    again: str = ""
    where: str = "store"
    released: str = ""
    serve: bool = False
    fixes: str = ""
    ends: tuple[int, ...] = (0,)
    embeds: bool = True


def _manifest(source: str) -> str:
    return f"""\
name: peers
source: {{{source}, collection: docs}}
target: {{collection: docs_moved}}
model:
  provider: openai
  name: {MODEL}
  base_url: $URL
  dimensions: 1536
  api_key_env: OPENAI_API_KEY
  options: {{batch_items: 256}}
embed: {{concurrency: 4}}
verify: {{allow_quarantined: 2, index_recall: 0.1}}
state: ./state
"""


CHROMA, POSTGRES = _manifest("url: 'chroma:./store'"), _manifest("url: '$VECSHIFT_DSN'")
JOB = f"""\
version: 1
name: docs
source: {{table: docs, vector_column: embedding, text_column: content}}
target: {{column: embedding_v2}}
model: "openai/{MODEL},url=$URL,price=0.02"
"""

TOOLS = (
    Tool(
        "script", "chroma", "copies and embeds", '"$BIN/python" "$HERE/script.py" "$STORE"',
        "docs-moved", "Short enough to read.",
    ),
    Tool(
        "reembed, to loaded", "chroma", "copies and embeds",
        '"$BIN/reembed" run job.yaml --until load', "docs_moved", files={"job.yaml": CHROMA},
        ends=(0, 3),
    ),
    Tool(
        "reembed, with verify and swap", "chroma", "copies, embeds, verifies and swaps",
        '"$BIN/reembed" run job.yaml --swap', "docs", files={"job.yaml": CHROMA},
    ),
    Tool(
        "chromadb-data-pipes", "chroma", "copies and embeds",
        '"$BIN/cdp" export "http://127.0.0.1:$CHROMA_PORT/docs"'
        f' | "$BIN/cdp" embed --ef openai --model {MODEL}'
        ' | "$BIN/cdp" import "http://127.0.0.1:$CHROMA_PORT/docs-moved" --create --df cosine -',
        "docs-moved", "Pipes of JSON lines, with chunking and filters between them.",
        package="chromadb-data-pipes", released="2024-10", serve=True,
        fixes="five pins: numpy < 2, jinja2, langchain-community < 0.3, openai, and chromadb "
        "1.0.20 in place of 0.5.23, whose client cannot read an answer of Chroma 1.5",
    ),
    Tool(
        "isotrieve", "chroma", "maps 2,000 pairs' way to the rest, by a linear map",
        '"$BIN/python" "$HERE/linear.py" "$STORE"', "docs-moved",
        "A map costs a tenth of the texts or less; says itself when there are too few pairs.",
        package="isotrieve", released="2026-08", embeds=False,
    ),
    Tool(
        "rebasis", "chroma",
        "fits an adapter for queries; migrates only where dimensions are equal",
        '"$BIN/rebasis" fit --store "chroma://$STORE#docs" --old all-MiniLM-L6-v2'
        f" --new {MODEL} --new-dim 1536 --direction old_to_new --pairs 1500 --heldout 200"
        " --out adapter --state-dir state"
        ' && "$BIN/rebasis" migrate --adapter adapter --store "chroma://$STORE#docs" --yes'
        " --no-input --state-dir state", "",
        "Measures first, refuses before it writes, publishes what it withdraws.",
        package="rebasis", released="2026-08", embeds=False,
        fixes="made for Python 3.12: three type parameters are taken out for Python 3.11; its "
        "command line knows sentence-transformers only, so its default is set to its own openai",
    ),
    Tool(
        "vecparity", "chroma", "copies vectors as they are",
        'CHROMA_HOST=127.0.0.1 "$BIN/vecparity" migrate --from chroma://docs --to chroma://docs-moved',
        "docs-moved", "Moves between eight databases, and measures parity of searches.",
        package="vecparity", released="2026-08", serve=True, embeds=False,
    ),
    Tool(
        "vdf-io", "chroma", "copies and embeds",
        f'"$BIN/export_vdf" -m {MODEL} chroma --persistent_path "$STORE" --collections docs'
        f' && "$BIN/reembed_vdf" -d vdf_* -m openai/{MODEL} -t document --dimensions 1536'
        " --disable_mlx --overwrite"
        ' && "$BIN/import_vdf" -d vdf_* --create_new chroma --persistent_path target',
        "docs-2", "A file format of its own for a dozen databases.",
        package="vdf-io", released="2024-08", where="target",
        fixes="setuptools < 81, ipython < 9, mlx[cpu], and the modules of all other stores taken "
        "out, since those do not import with today's clients",
    ),
    Tool(
        "vecshift", "postgres", "adds a column and embeds", '"$BIN/vecshift" apply job.yaml --yes',
        "docs.embedding_v2",
        "doctor, bench, a plan with budget, eval, cutover and rollback; a trigger catches live "
        "writes; goes on after a kill.",
        package="vecshift", released="2026-10", files={"job.yaml": JOB},
    ),
    Tool(
        "reembed, to loaded", "postgres", "copies and embeds",
        '"$BIN/reembed" run job.yaml --until load', "docs_moved", files={"job.yaml": POSTGRES},
        ends=(0, 3),
    ),
    Tool(
        "reembed, with verify and swap", "postgres", "copies, embeds, verifies and swaps",
        '"$BIN/reembed" run job.yaml --swap', "docs", files={"job.yaml": POSTGRES},
    ),
)  # fmt: skip
