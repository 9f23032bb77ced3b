"""How a mail program is told that a mail is urgent, or can wait.

Standards: RFC 2156 (Importance, Priority). X-Priority is what most programs read, though no standard has it.
"""


def fields(priority):
    """Header fields, a list of (name, value), for "urgent", "normal" or "low". Raises ValueError for another."""
    if priority == "normal":
        return []
    if priority not in ("urgent", "low"):
        raise ValueError('not a priority: "%s"; it is "urgent", "normal" or "low"' % priority)
    urgent = priority == "urgent"
    return [
        ("X-Priority", "1" if urgent else "5"),
        ("Importance", "high" if urgent else "low"),
        ("Priority", "urgent" if urgent else "non-urgent"),
        ("X-Mailer", "edgepost"),  # spam filters mistrust an X-Priority that no program stands for
    ]
