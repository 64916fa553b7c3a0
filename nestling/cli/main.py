"""The command line: one file a command. Nothing heavy is imported before a command runs, so --help is quick."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nestling import __version__
from nestling.cli import (
    agree,
    backbones,
    bench,
    data,
    demo,
    distill,
    ending,
    eval,
    export,
    finetune,
    fit,
    import_,
    learn,
    pack,
    plan,
    predict,
    prune,
    push,
    quantize,
    report,
    search,
    show,
    trace,
)
from nestling.errors import NestlingError, WrongOption
from nestling.temporary import scratch

Commands = tuple[tuple[str, Callable[..., Any], str], ...]
GROUPS: tuple[tuple[str, Commands], ...] = (
    (
        "teach",
        (
            ("fit", fit.command, "learn your classes: a folder of photographs for each"),
            ("finetune", finetune.command, "let the whole network learn, slower and better"),
            ("distill", distill.command, "learn from what a better network answers"),
            ("import", import_.command, "take somebody else's .tflite network"),
            ("backbones", backbones.command, "which networks there are to begin with"),
            ("data prepare", data.prepare_command, "make class folders of lists and of other sizes"),
        ),
    ),
    (
        "shrink",
        (
            ("quantize", quantize.command, "8-bit integers: smaller files, the same answers"),
            ("prune", prune.command, "take away channels or weights that matter least"),
            ("search", search.command, "find by FastNAS how wide each layer should be"),
        ),
    ),
    (
        "print and prove",
        (
            ("export", export.command, "print .pte, .tflite, .onnx or C, and judge each"),
            ("eval", eval.command, "how good a network is on photographs"),
            ("agree", agree.command, "how often two networks give the same answer"),
            ("trace", trace.command, "the first layer where a file answers otherwise"),
            ("plan", plan.command, "RAM and flash in C, before anything is written"),
        ),
    ),
    (
        "device",
        (
            ("pack", pack.command, "all that a device needs to run and to learn"),
            ("push", push.command, "bring a package there, run it, bring back the head"),
            ("learn", learn.command, "let a packed network's head go on learning here"),
        ),
    ),
    (
        "look",
        (
            ("predict", predict.command, "what photographs show"),
            ("bench", bench.command, "milliseconds, memory and size, layer by layer"),
            ("report", report.command, "all of it on one page"),
            ("demo", demo.command, "the whole chain on photographs of solar cells"),
        ),
    ),
)
"""What one may want, and the commands for it: name, function, a line for --help (no longer than 80 columns with its name)."""


LONGEST = max(len(name) for _, commands in GROUPS for name, *_ in commands)


class _InGroups(TyperGroup):
    """The list of commands by what they are for, each line whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, commands in GROUPS:
            with formatter.section(title[0].upper() + title[1:]):
                formatter.write_dl([(name.ljust(LONGEST), line) for name, _, line in commands])


app = typer.Typer(
    cls=_InGroups,
    help="Teach a small vision network your own classes, shrink it, prove that the small one answers the same.\n\n"
    "\b\n"
    "Start with:  nestling fit PHOTOS -o my.nest    (PHOTOS: a folder a class)\n"
    "then:        nestling quantize my.nest -o my8.nest\n"
    "             nestling export my8.nest --to tflite -o out/\n"
    "             nestling predict out/my8-int8.tflite PHOTO.jpg",
    epilog="\b\nWhat a command takes:     nestling COMMAND --help\nTab completes them after: nestling --install-completion",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _, _commands in GROUPS:
    for _name, _function, _ in _commands:
        if " " not in _name:
            app.command(_name)(_function)
app.add_typer(data.app, name="data")


def _tell_version(wanted: bool) -> None:
    if wanted:
        show.tell(f"nestling {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option(ending.DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """main() takes --debug away before: here it is for --help."""
    if context.invoked_subcommand is None:
        show.tell(*context.get_help().split("\n"))


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave.

    Exit status: 0 done; 1 the work failed, a file that is missing or damaged too; 2 the command line is wrong, whatever lies on the
    disk; 130 interrupted; 141 whoever read stdout has gone.
    """
    warnings.showwarning = lambda message, category, *_: show.say(f"warning: {message}") if category is UserWarning else None
    words, debug = ending.without_debug(sys.argv[1:] if arguments is None else arguments)
    ended = _run(words, debug)
    show.say(*ended.lines)
    ending.leave(ended.status)


def _run(words: list[str], debug: bool) -> ending.Ending:
    streams = sys.stdout, sys.stderr
    try:
        with scratch():
            status = app(words, prog_name="nestling", standalone_mode=False)
        show.flush()
        interrupted = status == ending.INTERRUPTED  # typer itself answers some Ctrl-C with the status alone
        return ending.of_error(KeyboardInterrupt(), words) if interrupted else ending.Ending(status or ending.DONE)
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
            error, (sys.stdout, sys.stderr) = (
                error.__context__,
                streams,
            )  # click takes every broken pipe for stdout's, and hushes it
        if debug:
            show.say(*ending.traceback_of(error))
        return _ending(error, words)


def _ending(error: BaseException, words: list[str]) -> ending.Ending:
    if isinstance(error, typer.Abort):
        return ending.of_error(KeyboardInterrupt(), words)
    if isinstance(error, SystemExit):
        return ending.Ending(error.code if isinstance(error.code, int) else ending.FAILED)
    if hasattr(error, "format_message"):  # click's own: a wrong command line
        context = getattr(error, "ctx", None)
        return ending.wrong(error.format_message(), context.command_path if context else "nestling")
    if isinstance(error, WrongOption):
        named = [name for _, commands in GROUPS for name, *_ in commands if words[: len(name.split())] == name.split()]
        return ending.wrong(error.message, f"nestling {named[0]}" if named else "nestling", error.hint)
    if isinstance(error, show.ReaderGone) or (isinstance(error, BrokenPipeError) and show.reader_gone()):
        return ending.Ending(ending.READER_GONE)
    try:
        show.flush()
    except (NestlingError, show.ReaderGone) as of_stdout:
        error = of_stdout
    return ending.of_error(error, words)


if __name__ == "__main__":
    main()
