"""The one exception that means: what the user gave cannot be used."""


class InputError(Exception):
    """Bad input, in words that name the file and the field.

    The command line prints it without a traceback and exits with status 2.
    """
