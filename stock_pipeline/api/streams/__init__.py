"""The stream of events as clients follow it: one reader a process, and any number of connections that it feeds."""
