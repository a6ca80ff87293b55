"""The one exception for mistakes that the user can mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend: a wrong value, file, format or machine for the job.

    The message is one sentence that says what is wrong and what to do about it; the commands print it as one line
    on stderr and end with exit code 2.
    """


def reason(error: Exception) -> str:
    """What an error says, in one line; of one of the system's what went wrong alone, without its number and the file,
    which the sentence around it names."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
