"""Asset checks: what stops a wrong number from going on, and what is only said.

Each module belongs to the asset module of the same name: `*_SPECS` declare, functions evaluate. A check never catches
an exception of its own making: a fault in a check fails the run, it does not pass as a verdict.
"""
