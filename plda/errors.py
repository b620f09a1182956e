"""The two exceptions that are not bugs: unusable input and interrupted work."""


class InputError(Exception):
    """Bad input; the message names the file and the field.

    The command line prints it without a traceback and exits with status 2.
    """


class Unfinished(Exception):
    """Interrupted work: a signal stopped it, or a process was lost. A new run may succeed.

    The command line prints it without a traceback and exits with status AGAIN.
    """


AGAIN = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as in shells
