"""What a configuration lets people do: who can relay where, which doors are open, which files lie open.

Works on the compiled rules that the daemon serves with and says of them what holds for every client, not for the one
that somebody thought of. strangers.py has the proof that nobody unknown can relay, or finds who can; rights.py looks at
files; report.py puts it together. Decides nothing, changes nothing, asks no network.
"""
