"""The command line: one file a command. Nothing heavy is imported before a command runs, so --help is quick."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

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
from nestling.errors import NestlingError
from nestling.temporary import scratch

app = typer.Typer(
    help="Teach a small vision network your own classes, shrink it, prove that the small one gives the same answers.\n\n"
    "Start with:  nestling fit PHOTOS -o my.nest   (PHOTOS: a folder for each class)\n\n"
    "Then:  nestling export my.nest --precision int8 -o out/   and   nestling predict out/my-int8.tflite photo.jpg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.command)
app.command("fit")(fit.command)
app.command("import")(import_.command)
app.command("finetune")(finetune.command)
app.command("distill")(distill.command)
app.command("prune")(prune.command)
app.command("search")(search.command)
app.command("quantize")(quantize.command)
app.command("export")(export.command)
app.command("eval")(eval.command)
app.command("agree")(agree.command)
app.command("predict")(predict.command)
app.command("trace")(trace.command)
app.command("bench")(bench.command)
app.command("plan")(plan.command)
app.command("report")(report.command)
app.command("pack")(pack.command)
app.command("push")(push.command)
app.command("learn")(learn.command)
app.add_typer(data.app, name="data")
app.command("backbones")(backbones.command)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(ending.DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """main() takes it away before: here it is for --help."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave.

    Exit status: 0 done, 1 the work failed, 2 the command line is wrong, 130 interrupted, 141 whoever read stdout has gone.
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
            status = app(words, standalone_mode=False)
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
        help_ = f"  see:  nestling {' '.join(words[:1])} --help"
        return ending.Ending(ending.USAGE, (*f"error: {error.format_message()}".split("\n"), help_))
    if isinstance(error, show.ReaderGone) or (isinstance(error, BrokenPipeError) and show.reader_gone()):
        return ending.Ending(ending.READER_GONE)
    try:
        show.flush()
    except (NestlingError, show.ReaderGone) as of_stdout:
        error = of_stdout
    return ending.of_error(error, words)


if __name__ == "__main__":
    main()
