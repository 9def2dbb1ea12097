"""What a reader of rendered Markdown sees: its elements and its text."""

from html.parser import HTMLParser

TAGS = {*("p", "h4", "strong", "em", "code", "br"), *("table", "thead", "tbody", "tr", "th", "td")}
"""The elements that the Markdown of completions has."""


class Rendered(HTMLParser):
    """The elements of some HTML, their attributes, and the text of its paragraphs and cells."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.paragraphs, self.cells = set(), [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag in ("p", "td"):
            (self.paragraphs if tag == "p" else self.cells).append("")
            self.inside = self.paragraphs if tag == "p" else self.cells
        elif tag == "br":
            self.inside[-1] += "\n"

    def handle_endtag(self, tag):
        if tag in ("p", "td"):
            self.inside = []

    inside: list = []

    def handle_data(self, data):
        if self.inside:
            self.inside[-1] += data
