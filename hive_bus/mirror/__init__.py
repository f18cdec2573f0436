"""The mirror: JetStream carries a copy of the log, and a message's sequence is the event's position.

``encoding`` is how an event looks as a message, ``connection`` the way to a server, ``stream`` what is set up there, ``window``
pipelined publishing, ``relay`` who publishes, ``comparison`` the proof that both are equal. The database is the truth; what is on JetStream may be lost whole and is published again.
``signals`` is beside it: what goes by on core NATS, and is kept nowhere. `docs/nats.md` is for those who read it.
"""
