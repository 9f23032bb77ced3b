"""A sensor that is simulated: the number in a file."""


class Driver:
    def __init__(self, rule, board):
        self.path = board.path(rule["path"])

    def read(self):
        with open(self.path) as f:
            text = f.read(100).strip()
        try:
            return float(text)
        except ValueError:
            raise ValueError("%s holds %r, which is no number" % (self.path, text))
