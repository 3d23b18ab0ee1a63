"""The command line: a parser and nothing else.

Exit codes: 0, done; 1, a theorem falls short of its oracle; 2, input that cannot be used (one line on stderr says which
and how to mend it); 3, an audited number is beyond its threshold (--gate; a line for each); 130, interrupted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from .commands import (
    AlignCommand,
    AuditCommand,
    MergeCommand,
    ModelsCommand,
    ReportCommand,
    SurveyCommand,
    TaxCommand,
    TheoryCommand,
)
from .commands.replay import replayed
from .errors import AligntaxError, GateBreach
from .report import strip_control

Command = (
    Annotated[SurveyCommand, tyro.conf.subcommand("survey", prefix_name=False)]
    | Annotated[AlignCommand, tyro.conf.subcommand("align", prefix_name=False)]
    | Annotated[MergeCommand, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[AuditCommand, tyro.conf.subcommand("audit", prefix_name=False)]
    | Annotated[TaxCommand, tyro.conf.subcommand("tax", prefix_name=False)]
    | Annotated[ReportCommand, tyro.conf.subcommand("report", prefix_name=False)]
    | Annotated[ModelsCommand, tyro.conf.subcommand("models", prefix_name=False)]
    | Annotated[TheoryCommand, tyro.conf.subcommand("theory", prefix_name=False)]
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `aligntax run.yaml` replays a saved one."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        if len(words) == 1 and words[0].endswith((".yaml", ".yml")):
            replayed(Path(words[0])).execute()
        else:
            command = tyro.cli(  # type: ignore[call-overload]
                Command, args=words, prog="aligntax", description="Measure and pay less of the alignment tax."
            )
            code = command.execute()
            return code if isinstance(code, int) else 0
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
        return stop.code if isinstance(stop.code, int) else 2
    return 0


def one_line(error: BaseException | str) -> str:
    """A message without line breaks and control characters."""
    return " ".join(strip_control(str(error)).split())


def entry() -> None:
    """The console script."""
    sys.exit(main())
