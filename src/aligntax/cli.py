"""The command line: a parser and nothing else. Which commands there are stands in `commands/registry.py`.

Exit codes: 0, done; 1, a theorem falls short of its oracle; 2, input that cannot be used (one line on stderr says which
and how to mend it); 3, an audited number is beyond its threshold (--gate; a line for each); 130, interrupted.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from . import __version__
from .commands.first_screen import first_screen
from .commands.launch import leave
from .commands.registry import COMMANDS
from .commands.seeds import check_seed
from .commands.short_help import short_help
from .errors import AligntaxError, GateBreach
from .report.text import strip_control

SHELLS = ("bash", "zsh", "fish")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `aligntax run.yaml` replays a saved one."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        code = run(words)
        leave()
        return code
    except GateBreach as breach:
        for line in breach.lines:
            print(f"aligntax: {one_line(line)}", file=sys.stderr)
        return 3
    except AligntaxError as error:
        print(f"aligntax: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("aligntax: interrupted; finished shards are kept, the same command goes on from there", file=sys.stderr)
        return 130
    except SystemExit as stop:
        return 0 if stop.code is None else stop.code if isinstance(stop.code, int) else 2


def run(words: list[str]) -> int:
    """What `words` ask for. Raises AligntaxError for a command that does not exist."""
    if not words or words[0] in ("-h", "--help"):
        print(first_screen())
        return 0
    name, rest = words[0], words[1:]
    if name == "--version":
        print(f"aligntax {__version__}")
        return 0
    if name.endswith((".yaml", ".yml")):
        return replay(Path(name), rest)
    if name == "completion":
        return completion(rest)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(COMMANDS)}, or give a run.yaml"
        raise AligntaxError(f"no command {name!r}; {hint}")
    if {"-h", "--help"} & set(rest):
        print(short_help(name))
        return 0
    return parsed(name, ["--help" if word == "--help-all" else word for word in rest])


def parsed(name: str, words: list[str]) -> int:
    """Parse `words` as the command `name` and execute it."""
    import tyro

    return executed(tyro.cli(COMMANDS[name].load(), args=words, prog=f"aligntax {name}"))


def executed(command: Any) -> int:
    """Exit code of a command. Raises AligntaxError for a setting that no command takes, before it begins."""
    check_seed(command)
    code = command.execute()
    return code if isinstance(code, int) else 0


def replay(path: Path, words: list[str]) -> int:
    """Execute the command that `path` records; code that it names runs only with --allow-code."""
    if set(words) - {"--allow-code"}:
        raise AligntaxError(
            f"{' '.join(words)}: a record is replayed as it stands; only --allow-code may follow {path}"
        )
    from .commands.replay import replayed

    return executed(replayed(path, allow_code=bool(words)))


def completion(words: list[str]) -> int:
    """Print the completion script of a shell."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise AligntaxError(f"{' '.join(['completion', *words])}: name one shell of {', '.join(SHELLS)}")
    import tyro

    kinds = tuple(
        Annotated[each.load(), tyro.conf.subcommand(name, prefix_name=False)] for name, each in COMMANDS.items()
    )
    every: Any = Union[kinds]  # noqa: UP007
    tyro.cli(every, args=["--tyro-write-completion", words[0], "-"], prog="aligntax")
    return 0


def one_line(error: BaseException | str) -> str:
    """A message without line breaks and control characters."""
    return " ".join(strip_control(str(error)).split())


def entry() -> None:
    """The console script; a reader that stops reading (`| head`) is no error."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
