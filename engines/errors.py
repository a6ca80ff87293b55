"""The one exception for mistakes that the user can mend."""

from __future__ import annotations

_LONGEST = 2000


class Sentence(Exception):
    """An error whose message is one line, whatever was quoted in it.

    Control characters, of which some would steer a terminal, are written as escapes, and of what is very long the
    middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_one_line(sentence))


class UserError(Sentence):
    """A mistake the user can mend: a wrong value, file, format or machine for the job.

    The message is one sentence that says what is wrong and what to do about it; the commands print it as one line
    on stderr and end with exit code 2.
    """


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return text


def shown(value: object) -> str:
    """`repr`, also of what has none: numbers of thousands of digits, and lists in lists without end."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "a value that is too long to show"


def reason(error: Exception) -> str:
    """What an error says, in one line; of one of the system's what went wrong alone, without its number and the file,
    which the sentence around it names."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
