"""Exit codes and error messages of the tools."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from eaglenet_mm.utils.printable import printable

#: Errors caused by settings, files or packages; all others are bugs.
_TOLD = (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def run_script(
    main: Callable[[], int | None], *, goes_on: bool = False
) -> None:
    """Run the main function of a tool and exit with its code.

    Args:
        main (Callable): Returns the exit code; None counts as 0.
        goes_on (bool): Whether the same command continues an interrupted run;
            Ctrl-C then says so. Default: False.

    Raises:
        SystemExit: With the code of ``main`` unless it is 0; 130 after
            Ctrl-C; 2 after an error. Errors of settings, files and packages
            are printed in one line, others with their traceback.
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
    except Exception:  # noqa: BLE001 - exit code 1 is a result
        traceback.print_exc()
        code = 2
    if code:
        sys.exit(code)
