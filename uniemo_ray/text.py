"""Text for one line of a log or of an error."""


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
