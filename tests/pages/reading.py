"""What stands on a page: as its HTML has it, and as a browser shows it."""

from html.parser import HTMLParser

# Everything that sticks out of the window or of its own box, outside of what scrolls or hides within itself; and words in a cell
# that is so narrow that they stand letter below letter.
STICKS_OUT = """(() => {
  const width = %d, found = [];
  const say = (e, why) => found.push(`${e.tagName}.${e.getAttribute("class")} ${why}: ${e.textContent.trim().slice(0, 40)}`);
  const inside = e => { for (let p = e.parentElement; p && p !== document.documentElement; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== "visible" && p.tagName !== "svg") return true; return false; };
  if (window.innerWidth !== width) found.push(`the window is ${window.innerWidth} wide`);
  if (document.documentElement.scrollWidth > width) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const e of document.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e), drawn = e.closest("svg");
    const words = e.matches("th, td") && e.checkVisibility() && !e.querySelector(".heard") ? e.innerText.split(/\\s/) : [];
    if (Math.max(...words.map(word => word.length)) > 12 && 0 < box.width && box.width < 56) say(e, "is squeezed");
    if (!box.width || !e.checkVisibility() || inside(e) || e.closest("defs, clipPath")) continue;
    if (box.right > width + 0.5 || box.left < -0.5) say(e, `from ${box.left} to ${box.right}`);
    if (drawn && e.tagName === "text") {
      const own = drawn.getBoundingClientRect();
      const past = [own.left - box.left, own.top - box.top, box.right - own.right, box.bottom - own.bottom];
      if (Math.max(...past) > 1) say(e, "is cut off");
    }
    const block = !drawn && style.overflowX === "visible" && style.display !== "inline";
    if (block && e.clientWidth && e.scrollWidth > e.clientWidth + 1) say(e, `${e.scrollWidth} in ${e.clientWidth}`);
  }
  return found;
})()"""

# For every picture, of every text: itself, the size of its letters in pixels, left, top, right, bottom.
TEXTS_OF_PICTURES = """[...document.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll("text")].map(e => {
  const box = e.getBoundingClientRect(), size = parseFloat(getComputedStyle(e).fontSize) * svg.getScreenCTM().a;
  return [e.textContent, size, box.left, box.top, box.right, box.bottom]; }))"""

VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


class Reader(HTMLParser):
    """A page as a list of (tag, attributes, text inside); complains of a tag that is closed out of turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {[self.elements[i][0] for i in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        if tag in ("th", "td"):
            self.handle_data(" ")  # between the cells of a row
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        for i in self.open:
            self.elements[i][2].append(data)

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(tag, attributes, "".join(text)) for tag, attributes, text in self.elements if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [" ".join(text.split()) for _, _, text in self.all(*tags)]
