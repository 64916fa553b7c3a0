"""Options that several commands take."""

from typing import Annotated

import typer

Trust = Annotated[bool, typer.Option("--trust", help="Compile and run a folder of C that this user's nestling did not write.")]
