"""nestling push."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show


def command(
    package: Annotated[Path, options.package()],
    target: Annotated[str, typer.Argument(help="ssh://user@host:port/folder, adb, or adb:SERIAL.")],
    run: Annotated[
        str | None,
        typer.Option(help="Then run its scripts there on this folder of photographs of the device's.", show_default="only push"),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Of adb: the folder on the device.", show_default="/data/local/tmp/nestling")
    ] = None,
    identity: Annotated[Path | None, options.file("Of ssh: file with the private key.", show_default="ssh's own")] = None,
    ssh_option: Annotated[list[str] | None, typer.Option(help="Of ssh: an option as its -o takes it; may be repeated.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a lost connection is taken up again.")] = 5,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the scripts of a package that this user's nestling did not pack.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Bring a package to a device: only what changed, going on after a lost connection. Run it there; bring back what it learned.

    Example:  nestling push pkg/ ssh://pi@raspberrypi.local/home/pi/parts --run /home/pi/photos
    """
    from nestling.device.push import PushConfig, place_of, push

    hear = show.say if json else show.tell
    config = PushConfig(identity, tuple(ssh_option or ()), retries, trust=trust)
    done = push(package, place_of(target, to), config, run, hear, show.say)
    if json:
        plain = {
            "files": done.sent.files,
            "bytes": done.sent.bytes,
            "connections_lost": done.sent.dropped,
            "ran": [{"script": ran.script, "output": str(ran.output), "seconds": round(ran.seconds, 3)} for ran in done.ran],
            "trained": None if done.trained is None else str(done.trained),
        }
        show.as_json(plain)
        return
    if done.sent.files is None or done.sent.bytes is None:
        show.tell(f"pushed      {package} to {target}")
    else:
        show.tell(f"pushed      {done.sent.files} files that changed, {show.size(done.sent.bytes)} sent")
    for ran in done.ran:
        show.tell(f"ran         {ran.script}, {ran.seconds:.1f} s, kept in {ran.output}")
    if done.trained is not None:
        show.tell(f"came back   {done.trained}")
    else:
        show.tell(f"next:  nestling push {show.path_hint(package)} {target} --run DATA_ON_THE_DEVICE")
