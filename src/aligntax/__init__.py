"""Survey the alignment tax of a language model before training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Survey

__version__ = "0.1.0"
__all__ = ["survey"]


def __getattr__(name: str) -> Any:
    """The room `aligntax.audit`, with `aligntax.audit.default_judge()`, is loaded when it is first named."""
    if name == "audit":
        from importlib import import_module

        return import_module("aligntax.audit")
    raise AttributeError(f"module 'aligntax' has no attribute {name!r}")


def survey(model: Any, **settings: Any) -> "Survey":
    """Survey the alignment tax of `model` before training; the same as `aligntax survey`, returning the result.

    `model` is anything the command line takes (Hub id, folder, adapter folder, .gguf file, embedded name) or an
    `aligntax.models.LoadedModel`. `settings` are the fields of `aligntax.commands.SurveyCommand` (`out`, `size`, `tasks`,
    `safety`, `metrics`, ...). Writes the same files. Raises `aligntax.errors.AligntaxError` for input that cannot be used.

    >>> import aligntax
    >>> result = aligntax.survey("smollm2-135m-instruct", size="quick")  # doctest: +SKIP
    >>> result.at_layer().tasks["arithmetic"].cosine  # doctest: +SKIP
    """
    from pathlib import Path

    from .commands import SurveyCommand
    from .commands.seeds import check_seed
    from .models import LoadedModel

    loaded = model if isinstance(model, LoadedModel) else None
    settings = {"quiet": True, **settings}
    for name in ("safety", "tasks", "formats", "tolerance"):
        if name in settings:
            given = settings[name]
            settings[name] = tuple(str(x) for x in ([given] if isinstance(given, str | Path) else given))
    if "out" in settings:
        settings["out"] = Path(settings["out"])
    command = SurveyCommand(model=loaded.name if loaded else str(model), **settings)
    check_seed(command)
    result = command.execute(loaded)
    assert result is not None, "plan=True prints and returns nothing; leave it out"
    return result
