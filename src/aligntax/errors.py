"""One base error, and the few children a caller may want to tell apart.

Every message is one line that repeats the input and says the mend; the command line prints it and exits with code 2.
"""


class AligntaxError(ValueError):
    """Something the user can mend: bad input, an unusable model, an undefined quantity."""


class DataError(AligntaxError):
    """A prompt, task or contrast file that cannot be used; the message names file and line."""


class ModelError(AligntaxError):
    """A checkpoint or tokenizer that cannot be used."""


class GeometryError(AligntaxError):
    """A geometric quantity that is undefined or infeasible for the given input."""


class DepthError(AligntaxError):
    """A quantity of the depth theory that is undefined or impossible for the given input."""


class LabError(AligntaxError):
    """A world that the laboratory cannot hold or that is not a probability distribution."""


class JudgeError(AligntaxError):
    """A judge that cannot be made, or that is asked for something it cannot judge."""


class NonFiniteError(ModelError):
    """NaN or infinity in weights, activations or gradients; the message names layer and task."""


class ResumeError(AligntaxError):
    """A folder that holds another run than the one to go on with; `changed` are the settings that differ."""

    def __init__(self, message: str, changed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.changed = changed


class GateBreach(AligntaxError):
    """Audited numbers beyond their thresholds, one line each in `lines`; the command line exits with code 3."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
