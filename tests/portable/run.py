"""Runs the tests of one file without pytest, as MicroPython needs it: run.py FILE [TEST ...].

Prints "PASS name", or a traceback and "FAIL name", for each, and exits with 1 when any failed. It
asks only for sys, io and asyncio, so it runs on a board too.
"""

import asyncio
import io
import sys


def directory(path):
    cut = path.rfind("/")
    return path[:cut] if cut >= 0 else "."


def source_line(trace):
    """The text of the line that a traceback ends in, or None: assert does not say what failed."""
    where = [
        part
        for part in trace.split("\n")
        if 'File "' in part and ", line " in part and "/expect.py" not in part
    ]
    try:
        name, number = where[-1].split('File "')[1].split('", line ')
        with open(name) as f:
            for _ in range(int(number.split(",")[0])):
                text = f.readline()
        return text.strip()
    except (IndexError, ValueError, OSError):
        return None


def show(error):
    out = io.StringIO()
    if hasattr(sys, "print_exception"):
        sys.print_exception(error, out)
    else:
        import traceback

        traceback.print_exception(error, file=out)
    print(out.getvalue())
    text = source_line(out.getvalue())
    if text:
        print("  >", text)


def run(function):
    """Calls a test, and runs what it returns when it is a coroutine."""
    if sys.implementation.name == "micropython":
        asyncio.new_event_loop()  # tasks of the test before would run on
        stream = sys.modules.get("smtp.stream")
        if stream:  # and it would wait for one of them
            stream._sweeper = None
            stream._open.clear()
    result = function()
    if hasattr(result, "send"):
        asyncio.run(result)


def each(module, names):
    """Runs these tests of a module; gives how many failed."""
    failed = 0
    for name in names:
        try:
            run(getattr(module, name))
        except Exception as error:
            failed += 1
            show(error)
            print("FAIL", name)
        else:
            print("PASS", name)
    return failed


def main(path, *only):
    here = directory(__file__)
    root = here + "/../.."
    for place in (root + "/tests/sim", root + "/firmware", root + "/lib", here, directory(path)):
        sys.path.insert(0, place)
    module = __import__(path[path.rfind("/") + 1 :].rsplit(".", 1)[0])
    names = only or sorted(n for n in dir(module) if n.startswith("test_"))
    return 1 if each(module, names) or not names else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
