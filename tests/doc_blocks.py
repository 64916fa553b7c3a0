"""The code blocks of README.md and docs/*.md, and what is to become of each.

A block is fenced, or stands four spaces in. Blocks of commands and of Python are run, unless a comment on the line before says
why not:

    <!-- slow -->                   run, and marked slow
    <!-- needs: a device -->        not run; its commands are looked at
    <!-- takes hours -->            likewise
    <!-- not run: a table -->       no commands; a line that is one all the same is looked at
    <!-- push needs: a device -->   all but `nestling push` is run; several names: pip, search; or slow; push needs: ...

A fence of another language (```c) says by itself that it is no command. There is no other way not to be run.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMENT = re.compile(r"<!-- (?P<said>.+) -->")
MARK = re.compile(
    r"(?P<slow>slow)|not run: (?P<what>.+)|"
    r"(?P<also_slow>slow; )?(?:(?P<names>[a-z, ]+) )?(?P<why>needs: .+|takes (?:minutes|hours))"
)
PYTHON = re.compile(r"(?:from|import) \w+")
NESTLING, SCRIPT = ("nestling", ".venv/bin/nestling"), ("python", ".venv/bin/python")
KNOWN = (*NESTLING, *SCRIPT, "torchrun", "make", "pip", "tar")


@dataclass(frozen=True)
class Block:
    """line: of its first line. language: what its fence says. comment: what the line before says, "" for none."""

    page: Path
    line: int
    language: str
    comment: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        """Without what indents all of it."""
        return "\n".join(self.lines) + "\n"

    @property
    def mark(self) -> re.Match[str] | None:
        return MARK.fullmatch(self.comment)

    @property
    def kind(self) -> str:
        """python, commands, nothing (it says that it is neither), or unclear, which no block may be."""
        if self.mark and self.mark["what"]:
            return "nothing"
        if self.language == "python" or (not self.language and PYTHON.match(self.text)):
            return "python"
        if self.language == "c":
            return "nothing"
        return "commands" if self.language in ("", "sh") and all(is_command(line) for line in self.commands) else "unclear"

    @property
    def slow(self) -> bool:
        return bool(self.mark and (self.mark["slow"] or self.mark["also_slow"]))

    @property
    def commands(self) -> tuple[str, ...]:
        """One a line; what ends in a backslash goes on."""
        return tuple(line for line in self.text.replace("\\\n", " ").splitlines() if line.strip())

    def runs(self, command: str) -> bool:
        """Whether nothing says that it does not."""
        if not self.mark or not self.mark["why"]:
            return True
        names = re.split(r",\s*", self.mark["names"]) if self.mark["names"] else None
        return names is not None and not set(words(command)[:2]) & set(names)


def is_command(line: str) -> bool:
    """As a reader would type it."""
    first = line.split()[0]
    return first in KNOWN or bool(re.fullmatch(r"\./\w+\.sh", first))


def words(command: str) -> list[str]:
    """As the shell takes them apart, without the comment behind."""
    return shlex.split(command, comments=True)


def blocks(page: Path) -> list[Block]:
    """In order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, at = [], 0
    while at < len(lines):
        before = lines[at - 1] if at else ""
        comment = COMMENT.fullmatch(before)
        said = comment["said"] if comment else ""
        if lines[at].startswith("```"):
            end = lines.index("```", at + 1)
            found.append(Block(page, at + 1, lines[at][3:].strip(), said, tuple(lines[at + 1 : end])))
            at = end + 1
        elif lines[at].startswith("    ") and (not before.strip() or comment):
            end = next((i for i in range(at, len(lines)) if lines[i].strip() and not lines[i].startswith("    ")), len(lines))
            found.append(Block(page, at + 1, "", said, tuple(line[4:] for line in lines[at:end])))
            at = end
        else:
            at += 1
    return found


def inline(page: Path) -> list[str]:
    """The commands in the middle of sentences, `nestling learn pkg parts`: those that have more words than a name."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        fence = 1 if block.language else 0
        for number in range(block.line - 1, block.line - 1 + len(block.lines) + 2 * fence):
            lines[number] = ""
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(lines))]
    return [span[span.index("nestling ") :] for span in spans if re.match(r"(?:torchrun .*-m )?nestling [a-z]+ .", span)]
