"""The end of a tool: its exit code, and what a mistake of the user says."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from eaglenet_mm.utils.printable import printable

#: What settings, files and packages raise; anything else is a fault of ours.
_TOLD = (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def run_script(
    main: Callable[[], int | None], *, goes_on: bool = False
) -> None:
    """Run the main function of a tool, and end the process if it failed.

    Args:
        main (Callable): Returns the exit code; None counts as 0.
        goes_on (bool): Whether the same command goes on after an
            interruption, which Ctrl-C then says. Default: False.

    Raises:
        SystemExit: With the code of ``main`` unless that is 0; 130 after
            Ctrl-C; 2 after an error, which is told in one line, or with its
            traceback where it is not one of settings, files or packages.
    """
    name = Path(sys.argv[0]).name
    try:
        code = main()
    except KeyboardInterrupt:
        if goes_on:
            print(f'\n{name}: interrupted; the same command goes on.')  # noqa: T201
        code = 130
    except _TOLD as err:
        words = ' '.join(f'{name}: {type(err).__name__}: {err}'.split())
        print(printable(words), file=sys.stderr)  # noqa: T201
        code = 2
    except Exception:  # noqa: BLE001 - 1 would be an answer of the tool
        traceback.print_exc()
        code = 2
    if code:
        sys.exit(code)
