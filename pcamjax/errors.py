"""The one exception that means "the input is wrong", as opposed to "the program is"."""


class InputError(ValueError):
    """Bad input from outside: the message is one line that names the file or value, what was expected and what to do.

    The command line prints the message alone and exits with code 2; library users catch it as a `ValueError`.
    """
