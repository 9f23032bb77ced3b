"""Questions to the person at the keyboard: in a terminal, or with the answers in a pipe, a line each.

An answer is checked at once and asked for again until it is right. Secrets are typed without echo. When the answers
end, that is a UserError which says what is missing.
"""

import getpass
import os
import re
import sys

from .errors import UserError


class Ended(UserError):
    """There is nobody to answer."""


def _line(prompt, secret=False):
    """One line; Ended at the end of standard input."""
    if secret and sys.stdin.isatty():
        try:
            return getpass.getpass(prompt)
        except EOFError:
            print(flush=True)
            raise Ended("the answers ended") from None
    print(prompt, end="", flush=True)
    line = sys.stdin.readline() if sys.stdin else ""
    if not sys.stdin or not sys.stdin.isatty():
        print(flush=True)  # there is no echo
    if not line:
        raise Ended("the answers ended")
    return line.rstrip("\r\n")


def ask(what, check=lambda text: text, default=None, secret=False, key="board.toml"):
    """The answer to `what`, as check(text) gives it, which raises ValueError for a wrong one.

    default: the answer to an empty line, None: there has to be one. key: what says the same without a question.
    """
    prompt = f"{what}{f' [{default}]' if default else ''}{' (is not shown)' if secret else ''}: "
    while True:
        try:
            text = _line(prompt, secret)
        except Ended:
            raise Ended(f"nobody answers: {what}? Answer it in a terminal, or say it in {key}") from None
        text = text if secret else text.strip()
        if not text and default is not None:
            text = default
            if not text:
                return text
        try:
            if not text:
                raise ValueError("an answer is needed")
            return check(text)
        except ValueError as e:
            print(f"  {e}" if not secret else f"  this {e}", flush=True)


def choice(what, allowed, default):
    """One of the words that are allowed; the beginning of one is enough."""

    def check(text):
        found = [word for word in allowed if word.startswith(text.lower())]
        if text.lower() in allowed:
            return text.lower()
        if len(found) != 1:
            raise ValueError(f"it is one of {', '.join(allowed)}")
        return found[0]

    return ask(f"{what} ({', '.join(allowed)})", check, default)


def agree(what, yes=False):
    """Whether the person agrees; `yes`: he has already. Nobody there to answer is no."""
    if yes:
        print(f"{what} yes", flush=True)
        return True
    while True:
        try:
            text = _line(f"{what} [y/n] ").strip().lower()
        except Ended:
            return False
        if text in ("y", "yes", "n", "no"):
            return text[0] == "y"
        print("  y or n", flush=True)


def secret(what, check, optional=False):
    """A secret as ("env", the name of a variable) or ("text", what was typed); None when it is optional and empty.

    `$NAME` means the environment variable NAME, which has to be set.
    """

    def either(text):
        found = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", text)
        if not found:
            check(text)
            return "text", text
        if found[1] not in os.environ:
            raise ValueError("names an environment variable that is not set")
        check(os.environ[found[1]])
        return "env", found[1]

    return ask(f"{what}, or $NAME of an environment variable", either, "" if optional else None, True) or None
