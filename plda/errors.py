"""The two exceptions that are no bug: the input cannot be used, or the work was cut short."""


class InputError(Exception):
    """Bad input, in words that name the file and the field.

    The command line prints it without a traceback and exits with status 2.
    """


class Unfinished(Exception):
    """The work was cut short from outside, by a signal or by the loss of a process: try again.

    The command line prints it without a traceback and exits with status AGAIN.
    """


AGAIN = 75  # EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
