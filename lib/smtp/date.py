"""Date and time as a mail says it. May use: nothing. Standard: RFC 5322 section 3.3."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
)  # fmt: skip


def date(epoch, offset=0):
    """A date-time of RFC 5322 3.3 (str): epoch in seconds since 1970 UTC, offset in seconds east.

    time.gmtime() is not asked: a board's may count from 2000.
    """
    days, second = divmod(int(epoch) + offset, 86400)
    # Days since 0000-03-01: with the leap day last, months and years follow by division.
    era, day = divmod(days + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month = (month + 2) % 12
    minutes = abs(offset) // 60
    return "%s, %d %s %04d %02d:%02d:%02d %s%02d%02d" % (
        _DAYS[(days + 3) % 7],
        day,
        _MONTHS[month],
        year + era * 400 + (month < 2),
        second // 3600,
        second // 60 % 60,
        second % 60,
        "-" if offset < 0 else "+",
        minutes // 60,
        minutes % 60,
    )
