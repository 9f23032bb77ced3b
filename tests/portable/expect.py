"""What a portable test may use beyond assert, which says little on MicroPython."""


def eq(got, wanted):
    """Fails with both values when they differ."""
    if got != wanted:
        raise AssertionError("got %r, wanted %r" % (got, wanted))


def raises(kind, function, *args, **named):
    """The exception of class `kind` that function(*args) raises; fails when there is none."""
    try:
        result = function(*args, **named)
    except kind as error:
        return error
    raise AssertionError("no %s from %r, it returned %r" % (kind.__name__, args, result))


def result(generator):
    """What a generator returns, whatever it yields on its way."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value
