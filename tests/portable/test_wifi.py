"""firmware/wifi.py on simulated radios: a Pico W and an ESP32 tell the same things in different ways."""

import asyncio
import sys

import hardware
import virtualtime
from expect import eq
from play import Random

CHIPS = ("rp2", "esp32")
TABLE = {"ssid": "barn", "password": "hay and straw", "hostname": "cold-store", "country": "DE"}


class Stage:
    """A station with its radio; time is made by the test."""

    def __init__(self, chip="rp2", patience=0, **table):
        hardware.reset(chip)
        hardware.ticks = virtualtime.ticks
        import network
        import wifi

        self.network = network
        self.lines = []
        self.ups = []
        self.clock = virtualtime.Clock(None)
        self.table = dict(TABLE)
        self.table.update(table)
        self.router = network.air["barn"] = network.Router("hay and straw")
        self.station = wifi.Station(self.table, self.log, self.clock, lambda: self.ups.append(self.seconds()), patience)
        self.start = virtualtime.ticks()

    def log(self, area, text):
        eq(area, "wifi")
        self.lines.append(text)

    def seconds(self):
        return (virtualtime.ticks() - self.start) // 1000

    def run(self, story):
        async def main():
            task = asyncio.create_task(self.station.run())
            await story
            eq(task.done(), False)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

        virtualtime.run(main())
        eq(hardware.misused, [])
        for line in self.lines:
            assert "hay" not in line and "straw" not in line, line

    def after(self, seconds):
        """Lets it run so long."""

        async def story():
            await asyncio.sleep(seconds)

        self.run(story())
        return self

    async def until_up(self, most):
        for _ in range(most):
            if self.station.up:
                return self.seconds()
            await asyncio.sleep(1)
        raise AssertionError("no network after %d s: %s" % (most, self.lines))


def test_the_network_is_joined_and_the_relay_may_go():
    for chip in CHIPS:
        stage = Stage(chip)
        eq(stage.station.wait(0), 1)

        async def story(stage=stage):
            await stage.until_up(10)
            eq(stage.station.wait(stage.clock.uptime()), 0)

        stage.run(story())
        eq(stage.lines, ['joined "barn" as 192.168.4.20'])
        eq(len(stage.ups), 1)


def test_country_and_host_name_are_told_before_the_radio_is_on():
    for chip in CHIPS:
        stage = Stage(chip).after(5)
        eq((stage.network.code, stage.network.name), ("DE", "cold-store"))
        stage = Stage(chip, country="FR").after(5)
        eq(stage.network.code, "FR")
        stage = Stage(chip)
        del stage.table["country"]
        stage.after(5)
        eq(stage.network.code, "XX")


def test_power_saving_is_left_as_it_is_unless_it_is_asked_for():
    for chip in CHIPS:
        eq(Stage(chip).after(5).network.made.pm, None)
        radio = Stage(chip, power_save=True).after(5).network.made
        eq(radio.pm, radio.PM_POWERSAVE)
        radio = Stage(chip, power_save=False).after(5).network.made
        eq(radio.pm, radio.PM_NONE)


def test_a_fixed_address_needs_no_dhcp():
    for chip in CHIPS:
        stage = Stage(chip, address="192.168.1.9", netmask="255.255.255.0", gateway="192.168.1.1", dns="192.168.1.2")
        stage.router.address = None
        stage.after(10)
        eq(stage.lines, ['joined "barn" as 192.168.1.9'])
        eq(stage.network.made.ifconfig()[3], "192.168.1.2")


def test_an_open_network_needs_no_password():
    for chip in CHIPS:
        stage = Stage(chip)
        del stage.table["password"]
        stage.router.key = ""
        eq(stage.after(10).lines, ['joined "barn" as 192.168.4.20'])


def test_a_wrong_password_is_told_as_that_and_once():
    for chip in CHIPS:
        stage = Stage(chip)
        stage.router.key = "another one"
        stage.after(600)
        eq(stage.lines, ['the network "barn" refuses the password: check wifi.password. It is tried again'])


def test_a_network_that_nobody_hears_is_told_as_that():
    for chip in CHIPS:
        stage = Stage(chip)
        stage.network.air.clear()
        stage.after(600)
        eq(len(stage.lines), 1)
        assert 'the network "barn" cannot be heard: check wifi.ssid' in stage.lines[0], stage.lines


def test_a_network_without_dhcp_is_told_as_that():
    for chip in CHIPS:
        stage = Stage(chip)
        stage.router.address = None
        stage.after(120)
        eq(len(stage.lines), 1)
        assert "gives no IP address: switch on DHCP in its router, or set wifi.address" in stage.lines[0], stage.lines


def test_a_router_that_does_not_admit_the_board_is_told_with_its_status():
    for chip, status in (("rp2", -1), ("esp32", 203)):
        stage = Stage(chip)
        stage.router.admits = False
        stage.after(120)
        eq(len(stage.lines), 1)
        assert "does not answer (status %d)" % status in stage.lines[0], stage.lines


def test_a_kind_of_security_that_the_board_cannot_do_is_told():
    stage = Stage("esp32")
    stage.router.wpa3 = True
    stage.after(60)
    assert "another kind of security: set its router to WPA2" in stage.lines[0], stage.lines


def test_a_radio_that_does_not_work_is_told_and_tried_again():
    for chip in CHIPS:
        stage = Stage(chip)
        hardware.fault("wifi", OSError("no answer from the chip"), 5)
        stage.after(200)
        eq(len(stage.lines), 2)
        eq(stage.lines[0], "the radio does not work (no answer from the chip). It is tried again")
        eq(stage.lines[1][:6], "joined")


def test_what_tells_why_it_has_not_joined_is_forgotten_whatever_comes():
    for joins in (True, False):
        stage = Stage("rp2")
        address, stage.router.address = stage.router.address, None

        async def story(stage, joins, address):
            for _ in range(60):
                await asyncio.sleep(0.25)
                if "unjoined" in sys.modules:
                    break
            assert "unjoined" in sys.modules
            if joins:
                stage.router.address = address
                await asyncio.sleep(120)

        stage.run(story(stage, joins, address))
        eq((len(stage.ups), "unjoined" in sys.modules), (int(joins), False))


def test_attempts_become_rarer_but_not_rarer_than_two_and_a_half_minutes():
    stage = Stage("rp2")
    stage.network.air.clear()
    times = []
    connect = stage.station.join

    async def join():
        times.append(stage.seconds())
        return await connect()

    stage.station.join = join
    stage.after(7200)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert gaps[0] < 15 and 120 < max(gaps) < 120 * 5 // 4 + 15, gaps
    assert min(gaps[10:]) >= 120, gaps
    assert len(set(gaps[10:])) > 5, "no jitter: %s" % gaps


def test_the_radio_is_switched_off_and_on_after_some_failures():
    for chip in CHIPS:
        stage = Stage(chip)
        stage.network.air.clear()
        radio = stage.network.WLAN()
        offs = []
        active = radio.active

        def switch(on=None, active=active, offs=offs):
            if on is False:
                offs.append(1)
            return active(on)

        radio.active = switch
        stage.after(1800)
        assert 1 <= len(offs) <= 4, offs
        stage.network.air["barn"] = stage.router
        stage.lines[:] = []
        stage.after(200)
        eq(stage.lines, ['joined "barn" as 192.168.4.20'])


def test_a_network_that_is_lost_is_found_again_at_once():
    for chip in CHIPS:
        stage = Stage(chip)

        async def story(stage=stage):
            await stage.until_up(10)
            stage.network.air.clear()
            await asyncio.sleep(10)
            eq((stage.station.up, stage.station.wait(99)), (False, 1))
            eq(stage.lines[1], 'the network "barn" is lost')
            stage.network.air["barn"] = stage.router
            since = stage.seconds()
            again = await stage.until_up(60)
            assert again - since < 30, again - since
            eq(len(stage.ups), 2)

        stage.run(story())


def test_a_second_without_a_network_is_no_loss():
    stage = Stage()

    async def story():
        await stage.until_up(10)
        connected = stage.network.made.isconnected
        looks = [False, False]
        stage.network.made.isconnected = lambda: looks.pop() if looks else connected()
        await asyncio.sleep(10)
        eq((looks, stage.station.up), ([], True))

    stage.run(story())
    eq(len(stage.lines), 1)


def test_mail_waits_for_the_time_of_day_but_not_for_ever():
    stage = Stage(patience=120)

    async def story():
        up = await stage.until_up(10)
        eq(stage.station.wait(stage.clock.uptime()), 1)
        await asyncio.sleep(117 - (stage.seconds() - up))
        eq(stage.station.wait(stage.clock.uptime()), 1)
        await asyncio.sleep(5)
        eq(stage.station.wait(stage.clock.uptime()), 0)

    stage.run(story())
    stage = Stage(patience=120)

    async def known():
        await stage.until_up(10)
        stage.clock.set(virtualtime.NOON)
        eq(stage.station.wait(stage.clock.uptime()), 0)

    stage.run(known())


def test_the_network_comes_and_goes_five_hundred_times():
    for chip in CHIPS:
        stage = Stage(chip)
        dice = Random(7)

        async def story(stage=stage, dice=dice):
            for _ in range(500):
                await stage.until_up(400)
                await asyncio.sleep(1 + dice.below(20))
                what = dice.below(3)
                if what == 0:
                    stage.network.air.clear()
                    await asyncio.sleep(dice.below(90))
                    stage.network.air["barn"] = stage.router
                elif what == 1:
                    stage.router = stage.network.air["barn"] = stage.network.Router("hay and straw")
                    await asyncio.sleep(5)
                else:
                    address, stage.router.address = stage.router.address, None
                    await asyncio.sleep(dice.below(90))
                    stage.router.address = address
            await stage.until_up(400)

        stage.run(story())
        assert stage.network.sessions > 400, stage.network.sessions
