"""Text for one line of a log or of an error."""


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8; names of files and strings of JSON need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(text: str) -> str:
    r"""The text with whatever is no UTF-8 as escapes, such as `caf\xe9.jpg` for a name in Latin-1."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
