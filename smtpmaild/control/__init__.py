"""What an operator can ask a running daemon, and order: the desk, and the control socket in front of it.

| file           | what                                                                                       |
|----------------|--------------------------------------------------------------------------------------------|
| desk.py        | everything that can be asked and ordered, in process: the status page asks it too          |
| queue_files.py | the verbs of the queue on its files; the commands use it where no daemon runs              |
| verbs.py       | the table of what the socket understands: the one place to add a verb                      |
| serving.py     | the socket, in the attendant (server/attendant.py)                                         |
| client.py      | its other end, for commands: blocking, and light to import                                 |

A request is a line of JSON, {"verb": "queue.list", "arguments": {...}}. Each line of the answer is a mapping with one
key: any number of {"row": {...}}, then {"done": {...}} or {"error": "...", "status": 64}, where the status is the exit
status for a command (sysexits.h). A verb that takes a message is followed by its bytes, as many as `size` says.
"""
