"""The pure core: functions from frames to frames.

What belongs here has no I/O, clock, environment, framework or unseeded randomness, so that it can be read, tested
and trusted alone. Reading and writing tables belongs to ``storage``, running things to ``orchestration``.
"""
