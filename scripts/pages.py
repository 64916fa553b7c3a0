"""What mkdocs does to a page before it is built: comments go, since Python's Markdown takes a block behind one for a part of it."""

from __future__ import annotations

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page, an empty line in the place of each comment."""
    return re.sub(r"(?m)^<!-- .* -->$", "", markdown)
