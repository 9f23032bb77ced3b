"""A gateway on battery: wakes, measures, queues; switches the radio on only for what is urgent or when a batch is due,
sends all mail in one session, and sleeps again.

To everything else the board never slept: uptime and the identity of this boot go on, and so does what counts in
seconds: how long an alarm lasts, when a mail is due again. Where waking is a start ("deep", see boards/board.py) all of
that is in RTC memory, written before each sleep; elsewhere it stays in RAM. Flash is written only when there is
something to tell. After any other start the state is a new one, and a session tells that the board is there.

No listener runs. May use: sensors' rules, and what start.build() starts. Loaded only where [sleep] is set.
"""

import asyncio
import binascii
import json
import sys

import clock as clocks
import gateway
import start
from smtp import const

_PRIORITY = {"urgent": 0, "normal": 1, "low": 2}
_WINDOW = 10  # seconds that a board stays awake after power on: the time to press Ctrl-C
_PROBE = const(60)  # seconds without radio after a session that failed, doubled each time
_DAY = const(86400)  # between two times that the clock is set
_SETTLE = const(15)  # seconds of a session that are spent on the clock
_NUMBER = const(0xFFFFFFF)  # as in smtp.queue
_NEVER = const(0x20000000)
_SLICE = const(3600000)  # ms of light sleep at a time


class Sleeper:
    """When to measure, when to switch the radio on, how long to sleep. All times are seconds of uptime.

    table: [sleep] of the configuration; queue: smtp.queue.Queue; rules: list of sensors.Rule; clock: clock.Clock; sets:
    whether time servers are asked; beat: seconds between heartbeats, or 0; name: the board's; ping: whether there is a
    session in each batch, also without mail.
    """

    def __init__(self, table, queue, rules, clock, sets=False, beat=0, name="", ping=False):
        self.every = max(1, int(table["every"]))
        self.batch = int(table["batch"])
        self.awake = int(table["awake"])
        self.name = name
        self.urgent = _PRIORITY[table["urgent"]]
        self.queue = queue
        self.rules = rules
        self.clock = clock
        self.sets = sets
        self.ping = ping
        self.beat = int(beat)
        now = clock.uptime()
        self.measure = now  # when the sensors are read next
        self.sent = now - self.batch  # when the last session was over
        self.set = now - _DAY  # when the clock was set
        self.closed = 0  # until then the radio stays off
        self.failures = 0  # sessions, one after the other
        self.tried = 0  # mails up to this number have met a session that failed
        self.due = now  # when the next heartbeat is due
        self.told = False  # what is wrong with the pin that wakes it

    # -- when

    def radio(self):
        """(when the radio is needed, why), or (None, None)."""
        first = why = None
        rows = self.queue.rows
        batch = self.sent + self.batch
        for i in range(0, len(rows), 4):
            key, at = rows[i], rows[i + 1]
            if key >> 28 <= self.urgent:
                word = "an urgent mail"
                if key & _NUMBER <= self.tried:
                    at = max(at, self.closed)
            else:
                word = "mail"
                at = max(at, batch, self.closed)
            if first is None or at < first:
                first, why = at, word
        for wanted, at, word in ((self.ping, batch, "the ping"), (self.sets, self.set + _DAY, "the clock")):
            at = max(at, self.closed)
            if wanted and (first is None or at < first):
                first, why = at, word
        return first, why

    def wake(self):
        """Seconds until something is to be done."""
        now = self.clock.uptime()
        at = [self.measure]
        radio = self.radio()[0]
        if radio is not None:
            at.append(radio)
        for rule in self.rules:
            for alarm in (rule.over, rule.ill):
                if alarm.seen and alarm.seen != alarm.raised and alarm.hold < _NEVER:
                    lasts = alarm.since + int(alarm.hold + 0.99)  # `for`: the reading that decides
                    if lasts > now:
                        at.append(lasts)
        return max(1, min(at) - now)

    async def read(self):
        """One reading of each sensor, and what follows from it."""
        now = self.clock.uptime()
        while self.measure <= now + 1:
            self.measure += self.every
        for e in await asyncio.gather(*[rule.step() for rule in self.rules], return_exceptions=True):
            if isinstance(e, Exception):
                gateway.log("sleep", "a rule failed:")
                sys.print_exception(e)
        if self.beat and self.due <= now:
            import heartbeat

            up = self.clock.uptime()
            try:
                gateway.alert(*heartbeat.compose(self.name, self.rules, self.queue, up), rule="\theartbeat")
                self.due = up + self.beat
            except (gateway.QueueFull, OSError) as e:
                gateway.log("sleep", "no room for the heartbeat: %s" % e)

    def over(self, good, wait=0):
        """A session is over. good: all went that was due; wait: seconds for which no smart host wants mail."""
        now = self.clock.uptime()
        self.queue.recall()  # what was in flight when the time was up
        if good:
            self.sent = now
            self.failures = self.closed = 0
        else:
            self.closed = now + max(int(wait), min(_PROBE << min(self.failures, 12), max(self.batch, 900)))
            self.failures += 1
            self.tried = self.queue.last

    # -- what survives

    def dump(self, room, ms, on=False):
        """All that (bytes), in `room` octets. ms: how long it will sleep; on: it does not, the radio is on."""
        clock, queue = self.clock, self.queue
        state = {
            "up": clock.ms(), "at": _now(), "ms": ms, "base": clock.base, "boot": queue.boot,
            "own": [self.measure, self.sent, self.set, self.closed, self.failures, self.tried, self.due],
            "rules": {}, "due": [],
        }  # fmt: skip
        for rule in self.rules:
            if rule.over.seen or rule.over.raised or rule.ill.seen:
                state["rules"][rule.name] = [
                    rule.failed, rule.value, rule.at, rule.fault, _pack(rule.over), _pack(rule.ill)]
        rows = queue.rows
        now = clock.uptime()
        for i in range(0, len(rows), 4):
            if rows[i + 1] > now and len(state["due"]) < 40:
                state["due"].append([rows[i], rows[i + 1]])
        while True:
            text = (b"+" if on else b"-") + json.dumps(state).encode()
            text = b"%08x" % binascii.crc32(text) + text
            if len(text) <= room:
                return text
            if state["due"]:
                state["due"] = state["due"][: len(state["due"]) // 2]  # the others are due at once
            elif state["rules"]:
                name = list(state["rules"])[-1]
                gateway.log("sleep", "too many sensors are not well: how long that of %s lasts is forgotten" % name)
                del state["rules"][name]
            else:
                return b""

    def load(self, data, woken):
        """Goes on from what dump() gave. False when it is none of this. woken: from deep sleep; or else it counts only
        if the radio was on then."""
        try:
            if int(data[:8], 16) != binascii.crc32(data[8:]) or not woken and data[8:9] != b"+":
                return False
            state = json.loads(data[9:])
            slept = _now() - state["at"]
            if not 0 <= slept <= state["ms"] + 600000:
                slept = state["ms"]
            clock, queue, rules = self.clock, self.queue, state["rules"]
            clock.skip(state["up"] + slept - clock.ms())
            if clock.base is None:
                clock.base = state["base"]
            queue.boot = state["boot"]
            self.measure, self.sent, self.set, self.closed, self.failures, self.tried, self.due = state["own"]
            for key, due in state["due"]:
                try:
                    queue.rows[queue.row(key) + 1] = due
                except KeyError:
                    pass  # it is gone
            self.told = True
            now = clock.uptime()
            for rule in self.rules:
                rule.alive = now
                for alarm in (rule.over, rule.ill):
                    alarm.since = alarm.start = now
                    alarm.due = now + alarm.repeat
                if rule.name in rules:
                    rule.failed, rule.value, rule.at, rule.fault, over, ill = rules[rule.name]
                    _unpack(rule.over, over)
                    _unpack(rule.ill, ill)
            return True
        except (ValueError, KeyError, TypeError, IndexError):
            return False


def _pack(alarm):
    return [alarm.seen, alarm.since, alarm.began, alarm.due, alarm.start]


def _unpack(alarm, kept):
    alarm.seen, alarm.since, alarm.began, alarm.due, alarm.start = kept


def _now():
    """Milliseconds of the chip's clock, which goes on in deep sleep."""
    return clocks.time.time_ns() // 1000000


# -- the session


async def session(sleeper, board, config, work, window):
    """Radio on, until all that is due has gone, or it cannot, or the time is up. window: seconds that it lasts at
    least."""
    import organs

    clock, queue = sleeper.clock, sleeper.queue
    result = [False, 0]

    async def over(relay):
        start = clock.uptime()
        station = organs.station
        from smtp import stream

        relay.gather = 1  # what is to be reported goes with the rest
        if station:
            station.patience = min(station.patience, sleeper.awake // 3)
        still = 0
        while clock.uptime() - start < sleeper.awake:
            await asyncio.sleep(0.25)
            now = clock.uptime()
            if now - start < window:
                continue
            if relay.failures or station and station.failures and not station.up:
                return
            if station and not station.up:
                continue
            known = organs.keeper and organs.keeper.at is not None
            if sleeper.sets and not known and now - (station.since if station else start) < _SETTLE:
                continue
            due = queue.due()
            wait = min([host.wait(now) for host in relay.hosts])
            if due is not None and due <= now and wait > 1:
                result[1] = wait
                return
            busy = stream._open or relay.report is not None or queue.rows and due is None
            still = 0 if busy or due is not None and due <= now else still + 1
            if still > 1:  # twice: a session that ends has nothing open for a moment
                # A clock that was not set is tried again with the next batch.
                sleeper.set = now if known else max(sleeper.set, now - _DAY + sleeper.batch)
                result[0] = True
                if sleeper.ping:
                    import health
                    import ping

                    one = ping.Ping(config["ping"], relay.slots, gateway.log)
                    most = config["ping"]["oldest"] + sleeper.batch
                    await one.turn(health.well(queue, relay, (), clock.uptime, most), relay.resolve)
                return
        gateway.log("sleep", "the session was not over within %d s: what is left waits" % sleeper.awake)
        if relay.delivered:
            sleeper.failures = 0

    began = clock.uptime()
    await gateway.attend(board, *start.build(board, config, list(work), False), over)
    if config.get("wifi"):
        import network

        wlan = network.WLAN(network.STA_IF)
        wlan.active(False)
        if hasattr(wlan, "deinit"):
            wlan.deinit()  # or the radio of a Pico W goes on waiting for orders
    organs.station = organs.keeper = None
    sleeper.over(*result)
    gateway.log("sleep", "the radio was on for %d s%s" % (
        clock.uptime() - began, "" if result[0] else ", in vain: the next attempt is in %d s" % (
            sleeper.closed - clock.uptime())))


# -- the board


def arm(sleeper, pin, tell):
    """Another level than now at this pin wakes the board. It is that of a digital sensor, which has set it up. None: no
    pin does."""
    try:
        import esp32

        ext0 = hasattr(esp32, "wake_on_ext0")
        if pin is None:
            return None if ext0 else esp32.wake_on_gpio((), False)
        (pin,) = [r.driver.pin for r in sleeper.rules if r.driver and r.rule.get("pin") == pin]
        level = not pin.value()
        if ext0:
            esp32.wake_on_ext0(pin, level)
        else:
            esp32.wake_on_gpio((pin,), level)
    except (ImportError, AttributeError, ValueError) as e:
        tell(e)


def nap(sleeper, board, config, seconds):
    """Sleeps. Where that is deep sleep it does not return."""
    import machine

    def tell(why):
        if not sleeper.told:  # once: flash wears out
            sleeper.told = True
            gateway.log("sleep", "sleep.wake_pin cannot wake this board: %s" % why)

    watch = sys.modules.get("watch")
    feed = watch and watch.feed
    if "wake_pin" in config["sleep"]:
        arm(sleeper, config["sleep"]["wake_pin"], tell)
    ms = seconds * 1000
    if board.SLEEPS == "deep":
        machine.RTC().memory(sleeper.dump(board.RTC_MEMORY, ms))
        if gateway.file:
            gateway.file.flush()
        try:
            machine.deepsleep(ms)
        except ValueError as e:  # of an ESP32-C3 only some pins can, and it says so only here
            tell(e)
            arm(sleeper, None, tell)
            machine.deepsleep(ms)
    if gateway.file:
        gateway.file.flush()
    clock = sleeper.clock
    end = clock.ms() + ms
    while True:
        left = end - clock.ms()
        if left <= 0:
            break
        if feed:
            feed()
        machine.lightsleep(min(left, board.WATCHDOG - 1000 if feed else _SLICE))
    if feed:
        feed()


async def run(board, config, work):
    """For ever; in deep sleep until it sleeps. As start.prepare() has made things ready."""
    import crash

    me = config["board"]
    log = gateway.log
    clock = gateway.time
    deep = board.SLEEPS == "deep"
    sleeper = Sleeper(config["sleep"], gateway.queue, gateway.rules, clock, bool(me.get("ntp")),
                      gateway._mail.get("heartbeat", 0), me["name"], bool(config.get("ping")))
    reason = board.reset_reason()
    window = _WINDOW
    if deep:
        import machine

        woken = reason == "deep sleep"
        if (woken or reason == "power on") and sleeper.load(machine.RTC().memory(), woken):
            window = 0
            if not woken:
                # RTC memory has outlived this "power on": the supply broke down under the radio. Not again at once.
                sleeper.over(False)
                log("sleep", "the supply failed while the radio was on: is the battery empty? The radio stays off for "
                    "%d s" % (sleeper.closed - clock.uptime()))
    dog = None
    if me.get("watchdog"):
        import organs
        import watch

        dog = watch.Watch(clock.uptime, organs.bite)
        dog.start(board.WATCHDOG)
    if window:
        log("sleep", "this board sleeps most of the time. Ctrl-C within %d s keeps it awake" % window)
    while True:
        task = asyncio.create_task(dog.run()) if dog else None
        await sleeper.read()
        if task:
            task.cancel()  # in a session there is another one, which looks at more
        at, why = sleeper.radio()
        if window or at is not None and at <= clock.uptime():
            if deep:
                machine.RTC().memory(sleeper.dump(board.RTC_MEMORY, 0, True))
            log("sleep", "radio on: %s" % (why or "the start"))
            await session(sleeper, board, config, work, window)
            window = 0
        crash.over("n")
        nap(sleeper, board, config, sleeper.wake())
