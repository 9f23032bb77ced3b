"""firmware/names.py: resolv.conf and hosts as a computer has them."""

from expect import eq
from names import hosts, nameservers
from play import Flash


def written(path, data):
    with open(path + "/file", "wb") as f:
        f.write(data)
    return path + "/file"


def test_the_first_three_name_servers_are_taken():
    with Flash() as path:
        for data, wanted in (
            (b"nameserver 192.0.2.1\n", ["192.0.2.1"]),
            (b"# a comment\n; another\nsearch lan\nnameserver 192.0.2.1 # the router\n\nnameserver\tfe80::1%eth0\n"
             b"options ndots:1\nnameserver 192.0.2.3", ["192.0.2.1", "fe80::1%eth0", "192.0.2.3"]),
            (b"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n",
             ["1.1.1.1", "2.2.2.2", "3.3.3.3"]),
            (b"nameserver\nnameserver dns.example.com\n#nameserver 192.0.2.1\nnameservers 192.0.2.2\n\xff\xfe\n",
             ["127.0.0.1"]),
            (b"", ["127.0.0.1"]),
        ):  # fmt: skip
            eq(nameservers(written(path, data)), wanted)


def test_a_computer_without_a_resolv_conf_is_its_own_name_server():
    with Flash() as path:
        eq(nameservers(path + "/none"), ["127.0.0.1"])


def test_a_name_has_all_the_addresses_that_hosts_gives_it():
    with Flash() as path:
        table = written(path, b"""127.0.0.1 localhost
# 192.0.2.66 mail.lan
192.0.2.1\tMail.LAN mail m # the smart host, not nas.lan
2001:db8::1   mail.lan
192.0.2.2
mail.lan mail.lan
\xff\xfe nas.lan \xff""")
        eq(hosts("mail.lan", table), ["192.0.2.1", "2001:db8::1"])
        eq(hosts("mail", table), ["192.0.2.1"])
        for name in ("nas.lan", "ail", "192.0.2.1", "smart", "", "#"):
            eq((name, hosts(name, table)), (name, []))
        eq(hosts("mail.lan", path + "/none"), [])
