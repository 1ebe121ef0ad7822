"""Alembic migrations; a revision is never changed once it has been released."""
