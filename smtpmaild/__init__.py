"""smtpmaild, an SMTP daemon: one YAML file in, mail that is safely on disk out.

A map of the package, from the wire inwards:

    server/     sockets, the event loop, workers         the only asyncio on the receiving side
    smtp/       the protocol as a state machine          bytes in, events out; no I/O at all; both its sides
    receiver    one mail transaction                     event -> policies -> routing -> stores -> reply
    reception   its message on the way into the stores   from DATA to the reply to its end
    policy/     what may be said at each step            one policy a file, one table of them
    routing     local domains and relay rules            a forward-path -> where it goes, or why not
    sink/       where mail is made durable before 250    Maildir, spool directory, discard
    queue/      what must travel on, until it has        a durable store, retries, reports to senders
    delivery/   who takes it on                          one kind of target a file, one table of them
    control/    what the operator asks and orders        a desk, a socket in front of it; with status/, web/, top
    history/    what happened, for `trace`               one SQLite file, beside the path of a message
    audit/      who can relay where, and the proof       with rehearsal and trial: what would happen
    dev/        a server that catches all mail           for `smtpmaild dev` and the pytest plugin
    config/     the YAML file as pydantic models         mistakes as file:line:column
    app         builds all of the above from a config    the one file that knows them all
    cli/        the commands

Programs that want the engine without the daemon import `smtpmaild.embedding`.
"""

__version__ = "0.1.0"
