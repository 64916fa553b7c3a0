"""What nestling says when something cannot be done: one line of what, one of what to type next."""

MAKE_BUNDLE = "make one:  nestling fit PHOTOS -o my.nest"


class NestlingError(Exception):
    """An error that a person can act on. The command line prints it without a traceback and exits with 1.

    message: what was expected and what was found, naming the file.
    hint: what to type or do next, or "" where there is nothing to add.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class WrongOption(NestlingError):
    """A setting that cannot be, whatever lies on the disk: the command line exits with 2."""


class UnusableData(NestlingError):
    """A folder of images, a list or an image that cannot serve."""


class UnusableFile(NestlingError):
    """A bundle, a graph or an artifact that is damaged, hostile or of another version."""


class NotTrusted(NestlingError):
    """A folder whose content would be compiled or run, and which this user's nestling did not write."""


class GateFailed(NestlingError):
    """An export whose answers are not those of the network it was printed from."""


class NoGraph(NestlingError):
    """A network that becomes no Graph: it holds an operation that the Graph does not, or torch.export cannot follow it."""


class UnsupportedOp(NoGraph):
    """An operation that the Graph does not hold; names the op, the layer and the targets that still work.

    what: the op and the layer alone, "layer_norm (layer stem.1)"; the message where it is not told apart.
    """

    def __init__(self, message: str, hint: str = "", what: str = "") -> None:
        super().__init__(message, hint)
        self.what = what or message
