"""The error that a user can mend."""


class UserError(ValueError):
    """Bad input from outside: the message names the cause, the place and the remedy in one line; the command line exits with 2."""
