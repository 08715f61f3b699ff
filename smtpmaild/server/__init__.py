"""Sockets, the event loop and processes: the only asyncio on the receiving side.

connection.py is one client, listener.py one door of the config, worker.py one process, supervisor.py several.
"""
