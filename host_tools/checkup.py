"""The board's side of `edgepost doctor`: what the board itself finds on the way to its smart host, and how it is.

The gateway is stopped for that, and started again. The board runs this library and firmware, which it reads from this
computer as /remote, and its own /config.json: what is checked is its network, its clock, its memory, and the CA that it
has. Nothing is written to its flash.
"""

import hashlib
import json
import os
import sys
import time

from . import asking, build, config, device
from .errors import UserError
from .providers import explain, known
from .wording import loudness, octets

OLDEST = (1, 23)  # MicroPython
SILENCE = 90  # seconds for one step on the board: a network that cannot be joined takes 30
START = 60  # seconds until the gateway runs again
_HEAP = 100 << 10  # octets that have to be free before anything is loaded; a TLS session takes 45 KB of them
_CLOCK = 60  # seconds that its clock may be wrong
_MARK = "\x06"

# Before the soft reset, after which some boards know no other reason. What runs has the profile loaded.
_REASON = """import sys
_r=None
for _n in list(sys.modules):
 if _n[:7]=='boards.' and _n!='boards.board':_r=sys.modules[_n].reset_reason()
"""
# A watchdog that runs cannot be stopped, and the timer that fed it ends with the soft reset.
_FEED = """from machine import WDT,Timer
_w=WDT(timeout=%d)
_t=Timer(%d)
_t.init(mode=Timer.PERIODIC,period=1000,callback=lambda t:_w.feed())
"""
_HASHES = """import hashlib,binascii,os
def _d(p):
 for e in os.ilistdir(p):
  q=p+'/'+e[0]
  if e[1]&0x4000:
   if e[0]!='spool':_d(q)
   continue
  h=hashlib.sha256()
  with open(q,'rb') as f:
   while 1:
    b=f.read(512)
    if not b:break
    h.update(b)
  print(q,binascii.hexlify(h.digest()).decode())
"""
_CODE = """import asyncio, gc, json, sys, time

def say(*row):
    print("\\x06" + json.dumps(row))

def ask(wlan, what):
    try:
        return wlan.status(what) if what == "rssi" else wlan.config(what)
    except (OSError, ValueError, TypeError):
        pass

async def look(config):
    import network
    from smtp.network import parse_ip
    from smtp.dns import Resolver

    if config.get("wifi"):
        import wifi

        station = wifi.Station(config["wifi"], print, None)
        why = await station.join()
        wlan = station.wlan
        if why:
            say("wifi", why)
            return
        say("wifi", None, station.ssid, ask(wlan, "rssi"), ask(wlan, "channel"), wlan.ifconfig()[0])
    me = config["board"]
    servers = me.get("dns") or [network.WLAN(network.STA_IF).ifconfig()[3]]
    resolver = Resolver(servers, time.time)
    resolve = resolver.resolve
    for name, port in me.get("ntp") or ():
        import sntp

        try:
            ip = name if parse_ip(name) else (await resolve(name))[0]
            ms = await sntp.ask(ip, port)
        except (OSError, ValueError, sntp.Refused) as e:
            say("ntp", name, str(e))
            continue
        from boards.board import set_clock
        from clock import _EPOCH

        off = ms // 1000 - time.time() - _EPOCH
        set_clock(ms // 1000)
        say("clock", name, off, ms // 1000)
        break
    else:
        if me.get("ntp"):
            say("timeless")
    for n, host in enumerate(config["smarthost"]):
        if host.pop("by", None):
            from smtp.mx import exchangers
            from smtp.reply import SMTPError

            domain = (config["mail"]["to"] + [config["mail"]["admin"]])[0].rpartition("@")[2].lower()
            if not domain:
                continue
            try:
                host["host"] = (await exchangers(resolver, domain, me["domain"].lower()))[0][1]
                say("mx", n, None, domain, host["host"])
            except SMTPError as e:
                say("mx", n, e.text, domain)
                continue
        await visit(n, host, me, resolve, parse_ip)

async def visit(n, host, me, resolve, parse_ip):
    from smtp import client, relay

    name = host["host"]
    kind = client.Client
    if host.pop("protocol", None):
        from smtp.lmtp import LMTP as kind
    if not parse_ip(name):
        try:
            found = await resolve(name)
            say("name", n, None, [str(ip) for ip in found][:4])
        except (OSError, ValueError) as e:
            say("name", n, str(e))
            return
    oauth = host.pop("oauth", None)
    one = relay.SmartHost(**host)
    context = one.context
    if one.security == "opportunistic":
        from smtp.mx import Opportunistic as kind
        from smtp.stream import client_context

        one.security = "none"
        context = lambda: client_context((), False)
    user = "" if oauth else one.username
    start = time.ticks_ms()
    try:
        gc.collect()
        session = await client.open_session(
            name, one.port, me["domain"] or "[127.0.0.1]", one.security, context(), user, one.password,
            resolve=resolve, kind=kind)
        took = time.ticks_diff(time.ticks_ms(), start)
        gc.collect()
        say("session", n, None, took, bool(oauth), gc.mem_free())
        await client.quit(session)
    except client.SessionError as e:
        say("session", n, e.reason, str(e), e.reply)
    except MemoryError:
        say("session", n, "memory", "")
    except (OSError, ValueError) as e:
        say("session", n, "other", "%s: %s" % (type(e).__name__, e))

def main():
    with open("/config.json") as f:
        config = json.load(f)
    asyncio.run(look(config))

main()
"""


def differences(mine, theirs, where=""):
    """The names of what differs between two configurations, as a person knows them."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted(mine.keys() | theirs.keys()):
            name = f"{where}.{key}" if where else key
            if key == "ca" and set(mine.get(key) or ()) <= set(theirs.get(key) or ()):
                continue  # the board has a spare one
            found += differences(mine.get(key), theirs.get(key), name)
        return found
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs) and mine:
        if all(isinstance(item, dict) for item in mine + theirs):
            found = []
            for n, pair in enumerate(zip(mine, theirs, strict=True)):
                found += differences(*pair, where if len(mine) == 1 else f"{where}[{n + 1}]")
            return found
    return [] if mine == theirs or not mine and not theirs else [where]


class Checkup:
    """One board. `report` is a doctor.Report; `toml` the board.toml that it is compared with."""

    def __init__(self, report, board, toml):
        self.report, self.board, self.toml = report, board, toml
        self.config = None  # /config.json

    def run(self):
        report, board = self.report, self.board
        report.about = f"the board at {board.port}"
        self.reset()
        self.feed()
        board.soft_reset()
        self.feed()
        info = board.info()
        version = ".".join(str(n) for n in info.version if n != "")
        if info.version < OLDEST:
            report.bad("MicroPython", f"it is {version}, and 1.23 or later is needed", "edgepost flash")
        else:
            report.good("MicroPython", f"{version} on {info.machine or info.platform}")
        self.memory(info)
        self.files()
        if self.config:
            self.network(info)

    def load(self, path):
        """(what is in a JSON file of the board, why there is none)"""
        try:
            return json.loads(self.board.read_file(path)), None
        except device.Raised:
            return None, "is not there"
        except ValueError:
            return None, "is no JSON"

    # -- how it is

    def reset(self):
        report, board = self.report, self.board
        board.exec(_REASON)
        reason = board.eval("_r")
        self.config, self.why = self.load("/config.json")
        record = self.load("/crash.json")[0]
        record = record if isinstance(record, dict) else {}
        why = str(record.get("why") or "")
        if record.get("n", 0) >= 3:
            report.bad("reset", f"safe mode, after three crashes in a row: {why}",
                       "mend what is wrong, then switch it off and on")  # fmt: skip
        elif reason == "watchdog":
            report.note("reset", "the last start came after a bite of the watchdog" + (f": {why}" if why else ""),
                        "see the log on the board, /log.txt, with [log]")  # fmt: skip
        elif reason:
            report.good("reset", f"the last start came after: {reason}" + (f"; last crash: {why}" if why else ""))
        else:
            report.note("reset", "no gateway ran on it" + (f"; last crash: {why}" if why else ""))

    def feed(self):
        """Keeps a watchdog fed; before the soft reset, to learn which board it is."""
        me = self.config.get("board") if isinstance(self.config, dict) else None
        if isinstance(me, dict) and me.get("watchdog"):
            esp = self.board.eval("__import__('sys').platform") == "esp32"
            self.board.exec(_FEED % ((10000, 0) if esp else (8300, -1)))

    def memory(self, info):
        report = self.report
        free = f"{octets(info.heap_free)} of {octets(info.heap)} free"
        if info.heap_free < _HEAP:
            report.bad("heap", f"{free} before anything is loaded, which is too little for the gateway and TLS",
                       "take out of boot.py what it does not need")  # fmt: skip
        else:
            report.good("heap", free)
        queue = self.config.get("queue", {}) if isinstance(self.config, dict) else {}
        reserve = queue.get("reserve", 32768) if isinstance(queue, dict) else 32768
        free = f"{octets(info.flash_free)} of {octets(info.flash)} free"
        if info.flash_free <= reserve:
            report.bad("flash", f"{free}: no mail is taken in any more",
                       "see `edgepost queue list --dead`, and `mpremote fs ls` for what is not needed")  # fmt: skip
        elif info.flash_free < 3 * reserve:
            report.note("flash", f"{free}, which is not much", "see `edgepost queue list --dead`")
        else:
            report.good("flash", free)

    def files(self):
        report, board = self.report, self.board
        if board.stat("/main.py") is None:
            report.bad("code", "there is no gateway on it: /main.py is missing", "edgepost deploy")
        else:
            self.code()
        if not isinstance(self.config, dict):
            report.bad("config", f"/config.json {self.why or 'is no configuration'}", "edgepost provision")
            self.config = None
            return
        try:
            wanted, _ = config.load(self.toml, os.environ, self.config)
        except UserError as e:
            report.note("config", f"not compared with {self.toml}: {e}")
            return
        found = differences(wanted, self.config)
        if found:
            report.note("config", f"it has another configuration than {self.toml}: {', '.join(found[:8])}",
                        "edgepost provision writes that of the file to the board")  # fmt: skip
        else:
            report.good("config", f"as in {self.toml}")

    def code(self):
        """Which version runs, or whether modules that lie in its flash are those of this computer."""
        report, board = self.report, self.board
        state = self.load("/slot.json")[0]
        if isinstance(state, dict) and state.get("run"):
            pack = f"/{state['run']}.pack"
            try:
                line = board.exec(f"with open({pack!r},'rb') as f:print(f.readline().decode())").split()
                version = line[4].decode("ascii")[:8]
            except (device.Raised, IndexError, UnicodeError):
                report.bad("code", f"{pack}, which should run, is missing or damaged", "edgepost deploy")
                return
            if "bad" in state:
                report.note("code", f"version {version} runs; the one that was deployed after it was rolled back",
                            "see the mail about it, or `edgepost deploy` again to see it happen")  # fmt: skip
            else:
                report.good("code", f"version {version} runs")
            return
        made = build.build(board.info().mpy, lambda line: None)
        name = "gateway.mpy" if (made / "gateway.mpy").is_file() else "gateway.py"
        if board.stat("/" + name) is None:
            return  # it is frozen, or in a pack
        board.exec(_HASHES)
        lines = board.exec("_d('')", 60).decode("utf-8", "replace").split("\n")
        there = dict(line.strip().rsplit(" ", 1) for line in lines if " " in line)
        other = []
        for path in sorted(made.rglob("*")):
            inside = "/" + path.relative_to(made).as_posix()
            if path.is_file() and not inside.startswith(("/boards/unix", "/smtp/cpython")):
                if there.get(inside) != hashlib.sha256(path.read_bytes()).hexdigest():
                    other.append(inside[1:])
        if other:
            report.note("code", f"{len(other)} of its files are other ones than here: {', '.join(other[:4])}",
                        "edgepost deploy, unless that is meant to be")  # fmt: skip
        else:
            report.good("code", "as on this computer")

    # -- what it sees

    def network(self, info):
        rest = bytearray()

        def take(data):
            rest.extend(data)
            while b"\n" in rest:
                line, _, after = bytes(rest).partition(b"\n")
                rest[:] = after
                text = line.decode("utf-8", "replace").strip()
                if _MARK in text:
                    self.row(json.loads(text.partition(_MARK)[2]))

        board = self.board
        board.mount(build.build(info.mpy, lambda line: None))
        try:
            board.exec(_CODE, SILENCE, take)
        except device.Raised as e:
            self.report.bad("network", f"the board cannot try it: {e.error}", "see `config` above; edgepost provision")
        except (ValueError, TypeError, KeyError, IndexError):
            self.report.bad("network", "what the board says gave no sense", "run the command again")

    def row(self, row):
        getattr(self, "on_" + row[0])(*row[1:])

    def on_wifi(self, why, ssid="", dbm=None, channel=None, ip=""):
        if why:
            what, _, todo = why.partition(": ")
            return self.report.bad("wifi", what, todo or "see the LED and `edgepost monitor`, and put it nearer")
        text = f'joined "{ssid}" as {ip}' + (f", channel {channel}" if channel else "")
        if dbm is not None:
            text += f", {dbm} dBm, {loudness(dbm)}"
            if dbm < -70:
                return self.report.note("wifi", text, "put the board or its router nearer, or turn its antenna free")
        self.report.good("wifi", text)

    def on_ntp(self, name, why):
        self.report.note("clock", f"the time server {name} does not answer ({why})", "check board.ntp and the firewall")

    def on_timeless(self):
        self.report.bad(
            "clock", "no time server answers: after each start mail waits for two minutes, and certificates are checked"
            " by the day on which MicroPython was built",
            "open UDP port 123 to the servers of board.ntp, or name one of this network there",
        )  # fmt: skip

    def on_clock(self, name, off, now):
        wrong = abs(now - time.time())
        if wrong > _CLOCK:
            return self.report.bad(
                "clock", f"{name} tells another time than this computer, by {wrong:.0f} s",
                "certificates are checked by it: see which of the two is wrong, and take another board.ntp",
            )  # fmt: skip
        self.report.good("clock", f"set by {name}" + (f", it was {abs(off)} s off" if abs(off) > 2 else ""))

    def of(self, n):
        host = self.config["smarthost"][n]
        return f"{host['host']}:{host['port']}", host

    def on_mx(self, n, why, domain, host=""):
        if why:
            return self.report.bad("MX", f"asked by the board: {why}", "check the address in [mail] to, and board.dns")
        self.report.good("MX", f"mail for {domain} goes to {host}")
        self.config["smarthost"][n]["host"] = host

    def on_name(self, n, why, found=()):
        where, host = self.of(n)
        if why:
            return self.report.bad("name", f"{host['host']} has no address, asked by the board: {why}",
                                   "check smarthost.host, and wifi.dns or the router's name server")  # fmt: skip
        self.report.good("name", f"{host['host']} is {', '.join(found)}")

    def on_session(self, n, reason, text="", more=None, free=0):
        where, host = self.of(n)
        report = self.report
        if not reason:
            tls = "no TLS" if host["security"] == "none" else "TLS under the CA that it has"
            if host["security"] == "opportunistic":
                tls = "TLS with anybody, where it is offered"
            elif host["security"] != "none" and host["verify"] == "none":
                tls = "TLS that is not verified"
            who = "no user name" if not host.get("username") else f"signed in as {host['username']}"
            took = f"in {text / 1000:.1f} s, {octets(free)} of heap free then"
            if more:
                report.note("AUTH", f"{where}: {tls}, {took}; not signed in, since that may use up a refresh token")
            else:
                report.good("AUTH", f"{where}: {tls}, {who}, {took}")
            return
        said = " ".join(str(part) for part in more) if more else text
        meaning, remedy = explain(said, known(host["host"])) if more else (None, None)
        kind, _, which = reason.partition(" ")
        check, what, todo = _TROUBLE.get(reason) or _TROUBLE.get(kind) or ("session", "{}", "run the command again")
        if meaning:
            todo = f"{meaning}: {remedy}"
        report.bad(check, f"{where}: {what.format(said)}", todo)


# SessionError.reason: (what is checked, what is wrong, what to do)
_TROUBLE = {
    "connect": ("port", "no connection from the board's network ({})",
                "this computer's network may be another one: allow outgoing connections to this port in the board's"),
    "reply": ("greeting", "the server says {}", "try again later, or ask whoever runs the server"),
    "starttls": ("STARTTLS", "{}: nothing is sent in the clear",
                 "something in the board's network may strip it, or the port is wrong (587)"),
    "tls ca": ("TLS", "its certificate stands under no CA that the board has",
               "edgepost provision stores the right ones; if it did, somebody stands in between"),
    "tls name": ("TLS", "its certificate is for another name", "set smarthost.host to a name of the certificate"),
    "tls expired": ("TLS", "its certificate has expired, by the board's clock",
                    "see `clock` above: without a time server the board's clock is wrong; set board.ntp"),
    "tls future": ("TLS", "its certificate is not valid yet, by the board's clock",
                   "see `clock` above: without a time server the board's clock is wrong; set board.ntp"),
    "tls": ("TLS", "the TLS handshake fails: {}", "see what this computer finds above"),
    "auth-missing": ("AUTH", "the server offers no AUTH that the board knows", "check smarthost.port: 587 or 465"),
    "auth": ("AUTH", "the server says {}", "check smarthost.username and smarthost.password, then edgepost provision"),
    "lost": ("session", "the connection broke off ({})", "run the command again; see the Wi-Fi's strength above"),
    "tls memory": ("heap", "no memory for a TLS session",
                   "take out of boot.py and board.toml what is not needed, or freeze the code into the firmware"),
    "memory": ("heap", "no memory for a TLS session",
               "take out of boot.py and board.toml what is not needed, or freeze the code into the firmware"),
}  # fmt: skip


def again(report, board):
    """Starts the gateway again."""
    board.soft_reset()
    if board.stat("/main.py") is None:
        return
    board.run_main()
    said, end = b"", time.monotonic() + START
    while asking.READY not in said and b">>> " not in said and time.monotonic() < end:
        said = said[-4000:] + board.read(0.2)
    if asking.READY in said:
        report.good("gateway", "runs again")
        return
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip(" >")]
    told = [line for line in lines if line.startswith("edgepost: ")] or lines or ["nothing"]
    report.bad("gateway", f"does not start again; it says: {' / '.join(told[-2:])}",
               "see the lines above; then reset the board")  # fmt: skip


def run(report, toml, port):
    """The rows of a board, in a doctor.Report. Raises BoardError when there is no board to be examined."""
    port = port or device.find()
    print(f"edgepost: the gateway on the board at {port} is stopped for this, and started again", file=sys.stderr)
    with device.connect(port) as board:
        try:
            Checkup(report, board, toml).run()
        except device.Gone as e:
            report.bad("board", str(e), "then reset it, so that the gateway starts again")
            return
        except device.BoardError as e:
            report.bad("board", str(e), "run the command again")
        try:
            again(report, board)
        except device.BoardError as e:
            report.bad("gateway", f"may not run: {e}", "reset the board")
