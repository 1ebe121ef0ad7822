"""Exchange calendars as data: one JSON file an exchange, made by ``make_calendars.py``; read by ``market.calendar``."""
