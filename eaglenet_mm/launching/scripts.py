"""Exit codes and error messages of the tools."""

from __future__ import annotations

import dis
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from eaglenet_mm.utils.printable import printable

_PACKAGE = str(Path(__file__).parents[1])

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
        words = ' '.join(f'{name}: {_told(err)}'.split())
        print(printable(words), file=sys.stderr)  # noqa: T201
        code = 2
    except Exception:  # noqa: BLE001 - exit code 1 is a result
        traceback.print_exc()
        code = 2
    if code:
        sys.exit(code)


def spare_tracebacks() -> None:
    """Print errors of settings and files without their traceback.

    For tools that run code of others for hours. An error is one of settings
    or files if this package raises it, whose messages say what to do, or if
    MMEngine does while it reads a config or builds what is in it. All others
    keep their traceback. In both cases the exit code is 1.
    """

    def tell(
        kind: type[BaseException],
        err: BaseException,
        trace: TracebackType | None,
    ) -> None:
        if trace is None or not _is_of_settings(err, trace):
            sys.__excepthook__(kind, err, trace)
            return
        name = Path(sys.argv[0]).name
        lines = f'{name}: {_told(err)}'.splitlines()
        print(*map(printable, lines), sep='\n', file=sys.stderr)  # noqa: T201

    sys.excepthook = tell


def _is_of_settings(err: BaseException, trace: TracebackType) -> bool:
    """Whether the message says all that the user needs."""
    if not isinstance(err, (*_TOLD, SyntaxError)):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    # raised on purpose, unlike the KeyError of a lookup
    raised = dis.opname[code.co_code[trace.tb_lasti]] == 'RAISE_VARARGS'
    if code.co_filename.startswith(_PACKAGE):
        return raised
    *_, library, part, _ = ('', '', *Path(code.co_filename).parts)
    if library != 'mmengine':
        return False
    # the registry calls constructors, whose arguments are settings
    return part in ('config', 'registry') or (part == 'runner' and raised)


def _told(err: BaseException) -> str:
    """Type and message; that of a KeyError would be in quotes."""
    is_key = isinstance(err, KeyError) and len(err.args) == 1
    return f'{type(err).__name__}: {err.args[0] if is_key else err}'
