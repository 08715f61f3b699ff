"""Pseudonyms in the log and all that is made of it: what `logging: {privacy: true}` stands for.

Local parts of addresses, IP addresses and names of users are replaced before the log, the history, `trace` and the
status page hear of them: `alice@example.com` becomes `u-5d1f0c2b9e@example.com`, `192.0.2.7` becomes `ip-8c21f04a7d`.
Whoever is the same person is the same pseudonym for a day (UTC), so that a complaint of today can be followed; the next
day there is another key, and the one before is gone: nobody can tell any more who was who, not even we.

`Private` (log.py) stands before the log of the daemon, as the Recorder of the history does. It looks at every fact: the
KINDS table says what each is, and what it does not know is searched for addresses as a text, so a fact that somebody
adds is covered before he thinks of it. The key is in a file that all processes share (keys.py). Mail itself, the queue
and `changes.log` beside it are not touched: they are mail, and an account of what operators did.
"""
