"""What keeps a board from its network, and what to do, by what the radio says. Loaded for that, and forgotten then.

May use: MicroPython's module network, in which an ESP32 and a Pico W differ.
"""

import network

# What a status means that does not change by itself: the names that a port may have for it.
_FAULTS = (
    (("WRONG_PASSWORD", "HANDSHAKE_TIMEOUT"), "refuses the password: check wifi.password"),
    (("NO_AP_FOUND", "NO_AP_FOUND_IN_RSSI_THRESHOLD"),
     "cannot be heard: check wifi.ssid and the distance; only 2.4 GHz will do"),
    (("NO_AP_FOUND_IN_AUTHMODE_THRESHOLD", "NO_AP_FOUND_W_COMPATIBLE_SECURITY"),
     "wants another kind of security: set its router to WPA2"),
)


def fault(status):
    """What a status means that does not change by itself, or None."""
    if status == 15:  # so an ESP32 may call a wrong password (WIFI_REASON_4WAY_HANDSHAKE_TIMEOUT)
        return _FAULTS[0][1]
    for names, text in _FAULTS:
        if status in [getattr(network, "STAT_" + name, None) for name in names]:
            return text


def why(wlan):
    """What is wrong when `wlan` has not joined, and nothing comes any more."""
    status = wlan.status()
    found = fault(status)
    if found:
        return found
    joined = status == 2  # so a Pico W says that it is in, without an address (CYW43_LINK_NOIP)
    if status > 1000:
        try:
            wlan.status("rssi")  # an ESP32 knows it only of a network that it is in
            joined = True
        except OSError:
            pass
    if joined:
        return "gives no IP address: switch on DHCP in its router, or set wifi.address"
    return "does not answer (status %s): check the distance, and whom its router admits" % status
