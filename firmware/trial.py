"""A new version of the gateway gets one start to show that it is good; or else the version before it runs again.

/slot.json holds, and a rename replaces it as a whole:

    {"run": "a"}                            the version in /a.pack runs
    {"run": "a", "new": "b", "left": 1}     the next start is that of /b.pack; `edgepost deploy` has written this
    {"run": "a", "new": "b", "left": 0}     that start has begun, or is over: the next one is that of /a.pack
    {"run": "b"}                            it was good
    {"run": "a", "bad": "b"}                it was not, and that has been told

So a trial is used up before it begins: a crash, a power cut, a reset or a bite of the watchdog in it lead back. start()
is run out of the old pack, and main() out of the new one. The watchdog runs in every trial, and after it until the next
start; while the new version is loaded a timer feeds it, for a while. It is good when for _CALM seconds no part of it
has failed and nothing stood still; a board that sleeps has to come to its first sleep.

May use: crash, life, watch, and what they start. Loaded only while /slot.json has a "new".
"""

import asyncio
import json
import os
import sys

import crash
import life
from smtp import const

PATH = "/slot.json"
PACK = "/%s.pack"
_LOAD = const(90)  # seconds for which a timer feeds the watchdog: so long may it take until the gateway runs
_CALM = 60
_PATIENCE = 300  # seconds of the gateway's life within which it has to show that it is good
_STILL = const(45)  # seconds for which a part may stand still
_ROLLED = "the new version was rolled back: "


def write(state):
    with open(PATH + ".new", "w") as f:
        json.dump(state, f)
    os.rename(PATH + ".new", PATH)


def whole(path):
    """Whether a pack is as it was made."""
    import binascii
    import hashlib

    try:
        with open(path, "rb") as f:
            wanted = f.readline().split()[4]
            mark = hashlib.sha256()
            buf = bytearray(1024)
            view = memoryview(buf)
            n = 1
            while n:
                n = f.readinto(buf)
                mark.update(view[:n])
        return binascii.hexlify(mark.digest()) == wanted
    except (OSError, IndexError):
        return False


# -- out of the old pack


def start(state, pack):
    """Decides what is to be started, and starts it. pack: main.py's Pack."""
    run, new = state["run"], state["new"]
    try:
        if not state.get("left"):
            back()
            write({"run": run, "bad": new})
        elif not whole(PACK % new):
            life.say("the new version in %s is damaged and is not tried: deploy it again" % (PACK % new))
            write({"run": run, "bad": new})
        else:
            write({"run": run, "new": new, "left": 0})
            return attempt(new, pack)
    except OSError as e:  # the flash is full, perhaps
        life.say("cannot write %s: %s" % (PATH, e))
    life.main()


def back():
    """The trial did not end well: what is known of it becomes the record that is mailed (see report.py)."""
    record = crash.read()
    if not record.get("rolled"):  # or else the power went in the middle of this
        why = record.get("why")
        if not record.get("n"):
            board = life.profile()
            if board and board.reset_reason() == "watchdog":
                why = "it hung, and the watchdog reset the board"
            else:
                why = "it was reset, or lost its power, before it had shown that it is good"
            record = {}
        record = {"n": 0, "all": 1, "why": _ROLLED + why, "text": record.get("text", ""), "up": record.get("up"),
                  "tell": True, "own": True, "rolled": True}  # fmt: skip
        crash.write(record)
    life.say(record["why"])


def attempt(new, pack):
    life.say("a new version is tried, once")
    record = crash.read()
    if record:
        record["n"] = record["rolled"] = 0  # what was before is not its fault
        crash.write(record)
    board = life.profile()
    import machine
    import vfs

    feed = machine.WDT(timeout=board.WATCHDOG).feed
    left = _LOAD

    def tick(timer):
        nonlocal left
        left -= 1
        if left > 0:
            feed()
        else:
            timer.deinit()

    timer = machine.Timer(board.TIMER)
    timer.init(mode=machine.Timer.PERIODIC, period=1000, callback=tick)
    try:
        vfs.umount("/app")
        vfs.mount(pack(new), "/app")
        for name in list(sys.modules):
            module = sys.modules[name]
            if (getattr(module, "__file__", None) or getattr(module, "__path__", "")).startswith("/app/"):
                del sys.modules[name]
        import trial

        trial.main(new, feed, timer)
    except KeyboardInterrupt:
        left = 1 << 29  # the prompt stays
        life.say("stopped by Ctrl-C; at the next start the version before it runs")
    except Exception as e:
        fail(board, "%s: %s" % (type(e).__name__, e), crash.trace(e))


# -- out of the new pack


def fail(board, why, text="", up=None):
    """It is no good: the board starts again, with the old one."""
    print(text)
    life.say("the new version is no good (%s): back to the one before" % why)
    crash.note(why, text, up)
    file = getattr(sys.modules.get("gateway"), "file", None)
    if file:
        file.flush()
    board.restart()


def main(slot, feed, timer):
    """The gateway, and a judge in it. feed: of the watchdog, timer: which feeds it until the gateway does."""
    import gateway
    import start
    import watch

    watch.feed = feed
    configured, supervised, equip = gateway.read_config, gateway.supervise, start.equip
    judged = False

    def good():
        nonlocal judged
        write({"run": slot})
        judged = True
        timer.deinit()
        life.say("the new version is good, and stays")

    def read_config(*path):
        config = configured(*path)
        try:
            config["board"]["watchdog"] = True
        except (KeyError, TypeError):
            pass  # the gateway will say so
        return config

    async def supervise(name, job):
        try:
            await job()
        except Exception as e:
            text = crash.trace(e)
            if not judged:
                fail(life.profile(), "%s failed: %s: %s" % (name, type(e).__name__, e), text, gateway.time.uptime())
            gateway.log(name, "failed, starts again in 1 s:")
            print(text)
            if gateway.file:
                gateway.file.error(e)
        await asyncio.sleep(1)
        await supervised(name, job)

    async def prove(relay, server):
        timer.deinit()
        uptime = gateway.time.uptime
        began = since = uptime()
        dog = watch.everything(watch.Watch(uptime, None), relay, server, gateway.rules)
        for item in dog.items[:3]:  # those behind them are rules
            item[2] = _STILL
        while not judged:
            await asyncio.sleep(1)
            stuck = dog.look()
            now = uptime()
            if stuck:
                since = now
            try:
                if now - since >= _CALM:
                    good()
            except OSError as e:
                stuck = "the flash: %s" % e, now - since
            if stuck and now - began > _PATIENCE:
                fail(life.profile(), "%s did nothing for %d s" % stuck, "", now)
        while True:
            await asyncio.sleep(86400)

    def more(board, config, relay, server, listeners):
        jobs = equip(board, config, relay, server, listeners)
        return jobs if config.get("sleep") else jobs + [("trial", lambda: prove(relay, server))]

    gateway.read_config, start.supervise, start.equip = read_config, supervise, more
    try:
        sleeps = configured().get("sleep")
    except (AttributeError, gateway.Unusable):
        sleeps = None
    if sleeps:
        import sleep

        nap = sleep.nap

        def first(*what):
            if not judged:
                good()
            nap(*what)

        sleep.nap = first
    why = life.main()
    if why and not judged:
        fail(life.profile(), why)
