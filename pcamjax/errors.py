"""The one exception that means "the input is wrong", as opposed to "the program is"."""


class InputError(ValueError):
    """Bad input from outside: the message is one line that names the file or value, what was expected and what to do.

    The command line prints the message alone and exits with code 2; library users catch it as a `ValueError`.
    """


def one_line(error: Exception) -> str:
    """All that an error says in one printable line; its class where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)


def first_line(error: Exception) -> str:
    """The first line of what an error says, at most 200 characters, for libraries go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
