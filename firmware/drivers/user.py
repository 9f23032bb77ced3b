"""A function of the user's own: rule: path: the file; function: its name. It takes nothing and gives a number, True or
False, or raises. It may be a coroutine. One that blocks stops the whole board; nobody can interrupt it.
"""

import sys


class Driver:
    def __init__(self, rule, board):
        place, _, name = board.path(rule["path"]).rpartition("/")
        if place not in sys.path:
            sys.path.append(place)
        self.read = getattr(__import__(name.rsplit(".", 1)[0]), rule["function"])
