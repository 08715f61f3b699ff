"""What each section of the file may look like; a test loads them, as parts of a file."""

from __future__ import annotations

from collections.abc import Mapping

#: Section -> what it may look like.
EXAMPLES: Mapping[str, str] = {
    "The top level": """\
version: 1
hostname: mx.example.com
postmaster: alice@example.com
listeners:
  - {name: mx, listen: ["0.0.0.0:25", "[::]:25"]}
local_domains:
  example.com: {deliver: mail, mailboxes: [alice, bob]}
deliver_to:
  mail: {type: maildir, path: "/var/spool/smtpmaild/mail/{domain}/{mailbox}"}
workers: auto
user: smtpmaild
""",
    "listeners": """\
listeners:
  - name: mx
    listen: ["0.0.0.0:25", "[::]:25"]
    tls: optional
  - name: submission
    listen: ["0.0.0.0:587"]
    role: submission
    limits: {recipients: 200}
    policies: {helo_syntax: {mode: monitor}}
  - {name: local, listen: [/run/smtpmaild/submit.sock], role: internal, socket_mode: "0666"}
""",
    "accounts": """\
accounts:
  users_file: /etc/smtpmaild/users
  failures: 10
  uncounted_networks: [127.0.0.0/8, "::1", 192.0.2.80]
""",
    "local_domains": """\
local_domains:
  example.com:
    mailboxes: [alice, bob]
    aliases: {postmaster: alice, sales: [alice, bob], lists: mailman@lists.example.net}
    relay: mx
    subaddress: "+"
    deliver: mail
  "*.example.com": {deliver: mail, mailboxes: [postmaster], catch_all: postmaster}
""",
    "deliver_to": """\
deliver_to:
  mail: {type: maildir, path: "/var/spool/smtpmaild/mail/{domain}/{mailbox}", file_mode: "0640", directory_mode: "0750"}
  intake: {type: spool, path: /var/spool/smtpmaild/intake}
  nowhere: {type: discard}
""",
    "relay_rules": """\
relay_rules:
  - name: moved
    to_domains: [old.example.com, "*.old.example.com"]
    reject: {code: 551, enhanced: "5.1.6", text: "old.example.com has moved to example.com"}
  - {name: office printers, from_networks: [192.0.2.0/24, "2001:db8::/32"], relay: smarthost}
  - {name: signed-in users, authenticated: true, relay: mx}
""",
    "relays": """\
relays:
  smarthost: {host: smtp.provider.example, port: 587, tls: verify, username: u, password_file: /run/secrets/relay}
  dovecot: {type: lmtp, path: /run/dovecot/lmtp}
  tickets: {type: webhook, url: "https://tickets.example.com/mail", format: json, secret_file: /run/secrets/hook}
  archive: {type: pipe, command: [/usr/local/bin/archive, --quiet], timeout: 1m}
""",
    "queue": """\
queue: {path: /var/lib/smtpmaild/queue, max_age: 5d, warn_after: 4h, report_by: smarthost}
""",
    "sendmail": """\
sendmail: {listener: local}
""",
    "control": """\
control: {socket: /run/smtpmaild/control.sock, mode: "0660", group: adm}
""",
    "status": """\
status: {listen: "127.0.0.1:8080", token_file: status-token}
""",
    "tests": """\
tests:
  - {name: sales reaches people, to: sales@example.com, expect: accept, delivered_to: mail}
  - {name: strangers cannot relay, client: 203.0.113.9, to: x@example.net, expect: reject 550}
""",
    "history": """\
history: {path: /var/lib/smtpmaild/history.sqlite, keep: 14d, size: 1 GB}
""",
    "tls": """\
tls:
  certificates:
    - {certificate: mx.example.com.pem, key: mx.example.com.key}
    - {certificate: example.org.pem, key: example.org.key, names: ["*.example.org"]}
  minimum_version: "1.2"
""",
    "policies": """\
policies:
  helo_syntax: {mode: monitor}
  senders: {users: {newsletter: "news-*@example.com"}}
  messages_per_session: {limit: 100}
""",
    "limits": """\
limits: {message_size: 50 MB, recipients: 1000, connections_per_ip: 50, memory: 256 MB}
""",
    "timeouts": """\
timeouts: {command: 5m, data_block: 3m, drain: 30s}
""",
    "dns": """\
dns: {servers: [127.0.0.1, "[::1]:5353"], timeout: 3s}
""",
    "logging": """\
logging: {level: info, format: json, privacy: true}
""",
}
