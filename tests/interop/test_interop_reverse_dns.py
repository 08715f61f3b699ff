"""The daemon asks a name server for its clients, as it is configured, and ends while it still waits for an answer."""

from __future__ import annotations

import smtplib
import socket
import struct
import time
from pathlib import Path

from daemons import PATIENCE, Daemon
from nameserver import SILENT, name_server_beside

RECORDS: dict[str, list[str] | str] = {
    "77.0.0.127.in-addr.arpa PTR": ["printer.example."],
    "printer.example A": ["127.0.0.77"],
    "78.0.0.127.in-addr.arpa PTR": ["printer.example."],
    "79.0.0.127.in-addr.arpa PTR": SILENT,
}
LISTENER = """\
  - {{name: named, listen: ["127.0.0.3:0"], reverse_dns: true}}
dns: {{servers: ["127.0.0.1:{port}"], timeout: 30s}}
relay_rules:
  - {{name: printers, client_names: ["*.example"], from_networks: [127.0.0.0/8], deliver: mail}}
"""


def test_names_reach_rules_and_received(tmp_path: Path) -> None:
    with name_server_beside(RECORDS) as server:
        daemon = Daemon(tmp_path, listeners=LISTENER.format(port=server.address[1]))
        address = ("127.0.0.3", daemon.port("named"))
        with smtplib.SMTP(*address, source_address=("127.0.0.77", 0), timeout=PATIENCE) as printer:
            printer.ehlo("printer")
            assert printer.sendmail("p@x.example", ["anybody@elsewhere.example"], "Subject: x\n\nhello\n") == {}
        with smtplib.SMTP(*address, source_address=("127.0.0.78", 0), timeout=PATIENCE) as liar:
            liar.ehlo("printer")
            liar.mail("p@x.example")
            assert liar.rcpt("anybody@elsewhere.example") == (550, b"5.7.1 Relaying denied")
        with socket.create_connection(address, PATIENCE, ("127.0.0.79", 0)) as waiting:
            while "79.0.0.127.in-addr.arpa PTR" not in server.asked:
                time.sleep(0.01)
            waiting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # not an orderly end
        assert daemon.stop() == 0
    (raw,) = daemon.raw("anybody", "elsewhere.example")
    assert b"Received: from printer (printer.example [127.0.0.77])\n" in raw
    (accepted,) = daemon.facts("message_accepted")
    assert (accepted["client_name"], accepted["rules"]) == ("printer.example", ["printers"])
    assert daemon.facts("loop_failure") == daemon.facts("session_failed") == []
