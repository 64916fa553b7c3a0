"""The command line: one file a command. Nothing heavy is imported before a command runs, so --help is quick."""

from __future__ import annotations

import sys
import warnings

import typer

from nestling.cli import (
    agree,
    backbones,
    bench,
    data,
    demo,
    distill,
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

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help="Teach a small vision network your own classes, shrink it, prove that the small one gives the same answers.\n\n"
    "Start with:  nestling fit PHOTOS -o my.nest   (PHOTOS: a folder for each class)\n\n"
    "Then:  nestling export my.nest --to pte --precision int8 -o out/   and   nestling predict out/my-int8.pte photo.jpg",
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


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with 0 (done), 1 (the work failed), 2 (the command line is wrong) or 130 (interrupted)."""
    warnings.showwarning = lambda message, category, *_: show.say(f"warning: {message}") if category is UserWarning else None
    try:
        status = app(arguments, standalone_mode=False)
    except NestlingError as error:
        show.say(f"error: {error}")
        status = FAILED
    except OSError as error:
        show.say(f"error: {error.filename or 'a file'}: {error.strerror or error}")
        status = FAILED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED  # typer itself answers some of these with the status alone
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: a wrong command line
            raise
        show.say(f"error: {error.format_message()}\n  see:  nestling {' '.join((arguments or sys.argv[1:])[:1])} --help")
        status = USAGE
    if status == INTERRUPTED:
        show.say("interrupted; what is in the cache stays, no file was left half-written")
    sys.exit(status if isinstance(status, int) else DONE)


if __name__ == "__main__":
    main()
