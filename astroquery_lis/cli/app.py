"""The command from its words to its exit code."""

import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress

from .._packages import package_version
from ..client import LegacySurveyClass
from ..exceptions import InvalidRequestError, LegacySurveyError
from . import catalogs, files, images, jwst, lists, many
from .arguments import Parser, protected
from .console import Console, check_output
from .exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_PIPE, HELP, of_error

__all__ = ["main", "parser"]

DESCRIPTION = "Client of the DESI Legacy Imaging Surveys."
EPILOG = "'astroquery-lis COMMAND --help' tells more of each.\n\n"


def parser():
    """Return the parser of the whole command.

    Returns
    -------
    `~.arguments.Parser`
    """
    top = Parser(prog="astroquery-lis", description=DESCRIPTION, epilog=EPILOG + HELP)
    top.add_argument("--version", action="version", version=f"astroquery_lis {package_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (images, many, files, catalogs, jwst, lists):
        group.add_commands(commands)
    return top


def main(arguments=None):
    """Run the command and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        The words after the command's name; by default those of this process.

    Returns
    -------
    int
        0 if all went well; see `~.exits`.  Wrong words exit with 2.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(protected(words))
    console = Console(options)
    try:
        with _second_interrupt_kills():
            code = _answered(options, console)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return EXIT_PIPE
    except OSError as error:
        # Standard output is on a disk that is full, or the like.
        _drop_stdout()
        console.fail(f"standard output: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


@contextmanager
def _second_interrupt_kills():
    """Let a second Ctrl-C end the process at once, and quietly, while the first is at work."""
    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not main_thread:
        yield
        return

    def interrupt(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        # Threads may still come to their end after an interrupt.
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


def _answered(options, console):
    """Return the exit code, with everything said."""
    try:
        with console.listening():
            code = _run(options, console)
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        code = of_error(error)
        console.fail(_told(error))
        console.finish(code, error)
    else:
        console.finish(code)
    return code


def _run(options, console):
    if hasattr(options, "output"):
        check_output(options)
    survey = LegacySurveyClass()
    survey.release = getattr(options, "release", None)
    survey.timeout = getattr(options, "timeout", None)
    code = options.run(options, survey, console)
    return EXIT_OK if code is None else code


def _told(error):
    """Return what a user should read of an error."""
    text = str(error).strip()
    if isinstance(error, (InvalidRequestError, LegacySurveyError)) and text:
        return text
    if isinstance(error, OSError) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _drop_stdout():
    """Let nothing more be written to a pipe that nobody reads."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
