"""python -m nestling, and the command `nestling`."""

import sys

try:
    from nestling.cli import ending
except KeyboardInterrupt:
    raise SystemExit(130) from None


def main() -> None:
    """Run the command line. Its imports take a second, in which memory may end or somebody press Ctrl-C."""
    ending.whole_streams()
    try:
        from nestling.cli.main import main as command
    except BaseException as error:
        words, debug = ending.without_debug(sys.argv[1:])
        ended = ending.of_error(error, words)
        ending.write((*(ending.traceback_of(error) if debug else ()), *ended.lines))
        ending.leave(ended.status)
    command()


if __name__ == "__main__":
    main()
