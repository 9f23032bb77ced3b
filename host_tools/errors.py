"""The one exception that reaches a person: its text says what happened and what to do."""


class UserError(Exception):
    """Something that the person at the keyboard can put right. Printed in one line, exit status
    2.
    """
