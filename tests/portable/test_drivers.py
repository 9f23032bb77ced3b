"""firmware/drivers/ on simulated hardware, which raises where a real board would, or would go wrong without a word.

Waits take no time here: see virtualtime.run.
"""

import asyncio
import os

import hardware
import virtualtime
from expect import eq, raises
from play import Flash


class Board:
    def path(self, name):
        return name


def driver(name, **rule):
    return __import__("drivers." + name, None, None, ("Driver",)).Driver(rule, Board())


def read(one):
    """A reading, as sensors.Rule takes it."""
    value = one.read()
    if hasattr(value, "send"):
        value = virtualtime.run(value)
    eq(hardware.misused, [])
    return value


def board(kind="rp2"):
    hardware.reset(kind)
    hardware.ticks = virtualtime.ticks


def pause(seconds):
    async def story():
        await asyncio.sleep(seconds)

    virtualtime.run(story())


def module(name):
    return __import__("drivers." + name, None, None, ("Driver",))


# -- file


def test_a_file_holds_a_number():
    with Flash() as path:
        one = driver("file", path=path + "/x")
        raises(OSError, one.read)
        for text, value in (("-9.5\n", -9.5), (" 3 ", 3)):
            with open(path + "/x", "w") as f:
                f.write(text)
            eq(read(one), value)
        with open(path + "/x", "w") as f:
            f.write("warm")
        assert "no number" in str(raises(ValueError, one.read))


# -- digital input


def test_a_contact_to_ground_needs_the_pull_up_resistor_which_is_the_default():
    board()
    one = driver("digital", pin=14)
    eq(read(one), 1)  # open
    hardware.drive(14, 0)
    eq(read(one), 0)
    hardware.drive(14, None)
    eq(read(one), 1)


def test_an_input_can_be_turned_round():
    board()
    one = driver("digital", pin=14, invert=True)
    eq(read(one), 0)
    hardware.drive(14, 0)
    eq(read(one), 1)


def test_an_input_pulls_down_or_not_at_all():
    board()
    one = driver("digital", pin="GP14", pull="down")
    eq(read(one), 0)
    hardware.drive(14, 1)
    eq(read(one), 1)
    bare = driver("digital", pin=15, pull="none")
    raises(hardware.Misuse, read, bare)  # it floats
    hardware.misused.clear()
    hardware.drive(15, 1)
    eq(read(bare), 1)


def test_a_pin_that_a_board_does_not_have_is_said():
    for kind, pin, rule in (("rp2", 30, {}), ("rp2", "D4", {}), ("esp32", 24, {})):
        board(kind)
        raises(ValueError, driver, "digital", pin=pin, **rule)
    board("esp32")
    raises(hardware.Misuse, driver, "digital", pin=34)  # has no pull resistor
    hardware.reset("esp32")
    hardware.drive(34, 1)
    eq(read(driver("digital", pin=34, pull="none")), 1)


def test_a_contact_that_bounces_is_read_when_it_has_settled():
    board()
    one = driver("digital", pin=14, debounce=0.05)

    async def bounce():
        for level in (0, 1, 0, 1, 0):
            hardware.drive(14, level)
            await asyncio.sleep(0.009)

    async def both():
        task = asyncio.create_task(bounce())
        value = await one.read()
        await task
        return value

    eq(virtualtime.run(both()), 0)


def test_a_contact_that_never_settles_is_a_failed_reading():
    board()
    one = driver("digital", pin=14, debounce=0.05)

    async def bounce():
        while True:
            hardware.drive(14, 1 - hardware.level_of(14))
            await asyncio.sleep(0.0125)

    async def both():
        task = asyncio.create_task(bounce())
        try:
            await one.read()
        except OSError as e:
            return str(e)
        finally:
            task.cancel()

    assert "does not settle" in virtualtime.run(both())


def impulse(milliseconds, pin=14):
    async def story():
        hardware.drive(pin, 1)
        await asyncio.sleep(milliseconds / 1000)
        hardware.drive(pin, 0)
        await asyncio.sleep(1)

    virtualtime.run(story())


def test_an_impulse_between_two_readings_counts_once_when_edges_are_asked_for():
    board()
    hardware.drive(14, 0)
    one = driver("digital", pin=14, edge=True)
    module("digital").ticks_ms = virtualtime.ticks
    eq(read(one), 0)
    impulse(100)
    eq(read(one), 1)
    eq(read(one), 0)
    impulse(5)  # noise: shorter than debounce
    eq(read(one), 0)
    impulse(100)
    impulse(100)
    eq([read(one), read(one)], [1, 0])


def test_a_turned_input_has_impulses_to_the_other_side():
    board()
    one = driver("digital", pin=14, edge=True, invert=True)
    module("digital").ticks_ms = virtualtime.ticks
    impulse(100)  # ends low, on
    eq(read(one), 1)
    hardware.drive(14, 1)
    eq([read(one), read(one)], [1, 0])  # it was on for a second


def test_without_edges_an_impulse_between_two_readings_is_not_seen():
    board()
    hardware.drive(14, 0)
    one = driver("digital", pin=14)
    impulse(100)
    eq(read(one), 0)


# -- analogue input


def test_a_voltage_is_scaled():
    for kind, pin in (("rp2", 26), ("esp32", 34), ("esp32s3", 4)):
        board(kind)
        one = driver("adc", pin=pin, factor=100 / 65535, offset=-20)
        hardware.volts[pin] = 1.65
        assert abs(read(one) - 30) < 0.01
        hardware.volts[pin] = 3.3
        assert abs(read(one) - 80) < 0.01
        hardware.volts[pin] = 0
        eq(read(one), -20)


def test_without_a_scale_the_raw_value_is_told():
    board()
    hardware.volts[28] = 3.3
    eq(read(driver("adc", pin=28)), 65535)


def test_a_pin_without_an_adc_is_said():
    for kind, pin in (("rp2", 14), ("esp32", 4), ("esp32s3", 20)):
        board(kind)
        raises(ValueError, driver, "adc", pin=pin)


def test_a_pin_is_one_thing():
    board()
    driver("digital", pin=26)
    raises(hardware.Misuse, driver, "adc", pin=26)


def test_an_adc_that_fails_raises_and_goes_on_afterwards():
    board()
    one = driver("adc", pin=26)
    hardware.fault("adc26", OSError(5), 2)
    raises(OSError, one.read)
    raises(OSError, one.read)
    eq(read(one), 0)


# -- thermometers on one wire


def test_a_lonely_thermometer_needs_no_name():
    board()
    hardware.thermometer(4, -18.5)
    one = driver("ds18x20", pin=4)
    eq(read(one), -18.5)
    hardware.buses[4][0].celsius = 21.0625
    eq(read(one), 21.0625)


def test_nothing_stands_still_while_a_thermometer_measures():
    board()
    hardware.thermometer(4, 20)
    one = driver("ds18x20", pin=4)
    other = []

    async def tick():
        while True:
            await asyncio.sleep(0.1)
            other.append(1)

    async def both():
        task = asyncio.create_task(tick())
        try:
            return await one.read()
        finally:
            task.cancel()

    eq(virtualtime.run(both()), 20)
    assert len(other) >= 6, other


def test_several_thermometers_are_told_apart_and_share_two_conversions():
    board()
    probes = [hardware.thermometer(4, t) for t in (20, 21, 22)]
    ones = [driver("ds18x20", pin=4, rom="".join(["%02x" % b for b in p.rom])) for p in probes]
    begun = virtualtime.ticks()

    async def all():
        return await asyncio.gather(*[one.read() for one in ones])

    eq(list(virtualtime.run(all())), [20, 21, 22])
    assert virtualtime.ticks() - begun < 1600, virtualtime.ticks() - begun
    eq(hardware.misused, [])
    probes[1].celsius = -5
    eq(read(ones[1]), -5)


def test_a_reading_is_never_older_than_its_question():
    board()
    a, b = hardware.thermometer(4, 20), hardware.thermometer(4, 30)
    ones = [driver("ds18x20", pin=4, rom="".join(["%02x" % x for x in p.rom])) for p in (a, b)]

    async def story():
        first = asyncio.create_task(ones[0].read())
        await asyncio.sleep(0.3)
        b.celsius = 40  # the conversion has begun already
        second = await ones[1].read()
        return await first, second

    eq(virtualtime.run(story()), (20, 40))


def test_several_thermometers_without_a_name_are_listed():
    board()
    roms = ["".join(["%02x" % b for b in hardware.thermometer(4, t).rom]) for t in (20, 21)]
    e = raises(OSError, read, driver("ds18x20", pin=4))
    eq(str(e), "2 thermometers on the bus, say by rom = which: " + ", ".join(roms))


def test_a_thermometer_that_is_unplugged_fails_and_comes_back():
    board()
    probe = hardware.thermometer(4, 20)
    for rule in ({}, {"rom": "".join(["%02x" % b for b in probe.rom])}):
        one = driver("ds18x20", pin=4, **rule)
        eq(read(one), 20)
        probe.unplug()
        raises(OSError, read, one)
        hardware.buses[4].append(probe)
        eq(read(one), 20)


def test_another_thermometer_on_the_bus_does_not_answer_for_one_that_is_gone():
    board()
    hardware.thermometer(4, 20)
    one = driver("ds18x20", pin=4, rom="28ff641e84160333")
    eq(str(raises(Exception, read, one)), "CRC error")


def test_nonsense_of_a_thermometer_is_a_failed_reading():
    board()
    probe = hardware.thermometer(4, 20)
    one = driver("ds18x20", pin=4)
    eq(read(one), 20)
    probe.broken = "crc"
    raises(Exception, read, one)
    probe.broken = "short"
    assert "shorted" in str(raises(OSError, read, one))
    probe.broken = None
    probe.celsius = 0
    eq(read(one), 0)  # a true zero


def test_85_degrees_are_believed_only_near_85_degrees():
    board()
    probe = hardware.thermometer(4, 85)
    one = driver("ds18x20", pin=4)
    assert "lost its power" in str(raises(OSError, read, one))
    probe.celsius = 84.5
    eq(read(one), 84.5)
    probe.celsius = 85
    eq(read(one), 85)
    probe.celsius = 20
    eq(read(one), 20)
    probe.celsius = 85
    raises(OSError, read, one)


def test_a_reading_that_is_given_up_does_not_block_the_bus():
    board()
    hardware.thermometer(4, 20)
    one = driver("ds18x20", pin=4)

    async def story():
        try:
            await asyncio.wait_for(one.read(), 0.2)
        except asyncio.TimeoutError:
            return await one.read()

    eq(virtualtime.run(story()), 20)


# -- DHT


def test_a_dht_gives_temperature_and_humidity_to_two_rules_of_one_measurement():
    for model, values in ((22, (21.5, 40.3)), (11, (21, 40))):
        board()
        hardware.climate[15] = (21.5, 40.3)
        warm = driver("dht", pin=15, model=model)
        damp = driver("dht", pin=15, model=model, reads="humidity")
        module("dht").ticks_ms = virtualtime.ticks
        for one, value in zip((warm, damp), values):
            assert abs(read(one) - value) < 0.001
        hardware.climate[15] = (5, 90)
        assert abs(read(damp) - values[1]) < 0.001  # not asked again so soon
        pause(2)
        eq([round(read(warm)), round(read(damp))], [5, 90])


def test_a_dht_that_fails_is_left_alone_for_two_seconds_as_well():
    board()
    one = driver("dht", pin=15)
    module("dht").ticks_ms = virtualtime.ticks
    for wrong in (None, "noise", (0, 0)):
        hardware.climate[15] = wrong
        raises(Exception, read, one)
        hardware.climate[15] = (20, 50)
        pause(1.9)
        raises(Exception, read, one)
        pause(0.1)
        eq(read(one), 20)
        pause(2)


# -- the chip itself


def test_each_chip_knows_its_own_temperature():
    for kind in ("rp2", "esp32", "esp32s3"):
        board(kind)
        hardware.celsius = 31
        assert abs(read(driver("chip")) - 31) < 0.6, kind


# -- the user's own


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


NAMES = [0]


def user(path, text, function="level"):
    NAMES[0] += 1  # a name that no other test has imported
    name = "%s/own%d.py" % (path, NAMES[0])
    write(name, text)
    return driver("user", path=name, function=function)


def test_a_function_of_the_user_is_a_sensor():
    hardware.reset()
    with Flash() as path:
        eq(read(user(path, "def level():\n    return 3.5\n")), 3.5)
        eq(read(user(path, "async def level():\n    return True\n")), True)
        raises(AttributeError, user, path, "x = 1\n")
        raises(SyntaxError, user, path, "def level(:\n")
        raises(ZeroDivisionError, user, path, "1 / 0\n")
        raises(ImportError, lambda: driver("user", path=path + "/own_is_missing.py", function="level"))
        raises(ValueError, read, user(path, "def level():\n    raise ValueError('dry')\n"))


def test_hardware_can_be_driven_by_a_file_from_outside():
    board()
    hardware.open = open  # on a virtual board it is one that opens what is outside of it
    with Flash() as path:
        hardware.follow(path + "/world.json")  # not there yet
        contact, level, warm = driver("digital", pin=14), driver("adc", pin=26), driver("ds18x20", pin=4)
        raises(OSError, read, warm)
        world_is = path + "/world.json"
        write(world_is, '{"pins": {"14": 0}, "volts": {"26": 3.3}, "thermometers": {"4": {"28ff641e84160333": 5}}}')
        eq([read(contact), read(level), read(warm)], [0, 65535, 5])
        write(world_is, '{"pins": {"14": 1}, "thermometers": {"4": {"28ff641e84160333": 6}}, "faults": {"adc": "x"}}')
        eq([read(contact), read(warm)], [1, 6])
        eq(str(raises(OSError, level.read)), "x")
        os.remove(world_is)
