"""network, simulated: the Wi-Fi of a Pico W or an ESP32 as each of them tells what goes on. See hardware.

    network.air["barn"] = network.Router("a password")      what can be heard
    network.air.pop("barn")                                  and no more
    Router.address = None                                    DHCP is silent; .admits = False: it refuses this device

A hardware.fault("wifi", OSError(...)) breaks the radio. In a process of its own the file of hardware.follow() has
{"wifi": {"barn": {"key": "a password"}}}, and "hurry", how many times faster all goes.
"""

import hardware
from hardware import misuse, use

STA_IF = 0
AP_IF = 1
_ESP32 = hardware.chip != "rp2"
if _ESP32:
    STAT_IDLE = 1000
    STAT_CONNECTING = 1001
    STAT_GOT_IP = 1010
    STAT_NO_AP_FOUND = 201
    STAT_NO_AP_FOUND_IN_RSSI_THRESHOLD = 212
    STAT_NO_AP_FOUND_IN_AUTHMODE_THRESHOLD = 211
    STAT_NO_AP_FOUND_W_COMPATIBLE_SECURITY = 210
    STAT_WRONG_PASSWORD = 202
    STAT_BEACON_TIMEOUT = 200
    STAT_CONNECT_FAIL = STAT_ASSOC_FAIL = 203
    STAT_HANDSHAKE_TIMEOUT = 204
else:
    STAT_IDLE = 0
    STAT_CONNECTING = 1
    STAT_WRONG_PASSWORD = -3
    STAT_NO_AP_FOUND = -2
    STAT_CONNECT_FAIL = -1
    STAT_GOT_IP = 3

air = {}
code = "XX"
name = "esp32" if _ESP32 else "PicoW"
made = None  # the WLAN
sessions = 0  # times that a network was joined


class Router:
    def __init__(self, key="", address="192.168.4.20", rssi=-55):
        self.key = key
        self.address = address
        self.rssi = rssi
        self.admits = True
        self.wpa3 = False  # of a kind that the board cannot do


def country(value=None):
    global code
    if value is None:
        return code
    if len(value) != 2:
        raise ValueError
    if made and made.on:
        misuse("the country is set when the radio is on already")
    code = value


def hostname(value=None):
    global name
    if value is None:
        return name
    if len(value) > 32:
        raise ValueError
    if made and made.on:
        misuse("the host name is set when the radio is on already")
    name = value


def WLAN(kind=STA_IF):
    global made
    if kind != STA_IF:
        misuse("this is no access point")
    if not made:
        made = _Wlan()
    return made


class _Wlan:
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = (0, 1, 2) if _ESP32 else (16, 10555714, 17)

    def __init__(self):
        self.on = False
        self.powered = False
        self.pm = None
        self.endless = True  # an ESP32 tries by itself
        self.reason = 0  # of its last failure, which it tells until there is a network
        self.static = None
        self.linked = False
        self.off()

    def off(self):
        self.target = None  # (ssid, key) that was asked for
        self.since = 0
        self.joined = None  # the Router, once the link is there
        self.failed = 0

    def active(self, on=None):
        if on is None:
            return self.on
        use("wifi")
        self.on = bool(on)
        self.powered = self.powered and not _ESP32 or self.on  # a Pico W's radio goes on waiting for orders
        if not on:
            self.off()
            self.static = None

    if not _ESP32:

        def deinit(self):
            if self.on:
                misuse("deinit() of a radio that is on")
            self.powered = False

    def config(self, *query, **values):
        if query in (("channel",), ("ssid",)) and self.on:
            return 6 if query[0] == "channel" else self.target[0] if self.target else ""
        if query or not self.on:
            misuse("WLAN.config: %r" % (query or values,))
        for key, value in values.items():
            if key == "pm" and value in (self.PM_NONE, self.PM_PERFORMANCE, self.PM_POWERSAVE):
                self.pm = value
            elif key == "reconnects" and _ESP32:
                self.endless = value != 0
            else:
                raise ValueError("unknown config param")

    def connect(self, ssid, key=None):
        use("wifi")
        if not self.on:
            misuse("connect() with the radio off")
        if not 0 < len(ssid.encode()) <= 32 or key is not None and not 8 <= len(key) <= 64:
            misuse("no such network or password can be")
        self.step()
        if _ESP32 and (self.joined or self.target and not self.failed):
            raise OSError("Wifi Internal State Error")
        self.off()
        self.target = ssid, key
        self.since = hardware.ticks()

    def disconnect(self):
        use("wifi")
        self.off()

    def step(self):
        """What has happened by now: a second to find the network, one for the password, one for DHCP."""
        for ssid, router in hardware.told.get("wifi", {}).items() if hardware.followed else ():
            if ssid not in air:
                air[ssid] = Router(router["key"], "127.0.0.1")
        if hardware.followed:
            for ssid in [s for s in air if s not in hardware.told.get("wifi", {})]:
                air.pop(ssid)
        if not self.target or self.failed:
            return
        ssid, key = self.target
        router = air.get(ssid)
        passed = (hardware.ticks() - self.since) * hardware.told.get("hurry", 1)
        if self.joined:
            if router is not self.joined:  # gone, or another one
                self.joined = None
                self.fail(200 if _ESP32 else -1)
        elif passed > 1000 and not router:
            self.fail(201 if _ESP32 else -2)
        elif passed > 1000 and router.wpa3:
            self.fail(210 if _ESP32 else -2)
        elif passed > 2000 and (key or "") != router.key:
            self.fail(15 if _ESP32 else -3)
        elif passed > 2000 and not router.admits:
            self.fail(203 if _ESP32 else -1)
        elif passed > 2000:
            self.joined = router

    def fail(self, reason):
        if _ESP32 and self.endless:
            self.since = hardware.ticks()
        else:
            self.failed = self.reason = reason

    def address(self):
        if self.joined:
            if self.static:
                return self.static[0]
            if (hardware.ticks() - self.since) * hardware.told.get("hurry", 1) > 3000:
                return self.joined.address

    def isconnected(self):
        global sessions
        if self.linked and not hardware.followed and air.get(self.target[0]) is self.joined and self.joined.address:
            return True  # as before
        use()
        self.step()
        connected = self.address() is not None
        if connected and not self.linked:
            sessions += 1
            self.reason = 0
        self.linked = connected
        return connected

    def status(self, what=None):
        self.step()
        if what == "rssi":
            if not self.joined:
                raise OSError("Wifi Not Connected")
            return self.joined.rssi
        if what:
            raise ValueError("unknown status param")
        if self.address():
            return STAT_GOT_IP
        if _ESP32:
            if self.reason:
                return self.reason
            return STAT_CONNECTING if self.target else STAT_IDLE
        return self.failed or (2 if self.joined else 1 if self.target else 0)

    def ifconfig(self, static=None):
        if not self.on:
            misuse("ifconfig() with the radio off")
        if static is None:
            address = self.address()
            if self.static and address:
                return self.static
            return (address, "255.255.255.0", "192.168.4.1", "192.168.4.1") if address else ("0.0.0.0",) * 4
        if len(static) != 4 or [part for part in static if part.count(".") != 3]:
            misuse("ifconfig(%r)" % (static,))
        self.static = tuple(static)
