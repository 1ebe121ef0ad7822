"""Who may come in and what they may do: accounts, tokens, roles, the audit trail, and what counts as abuse.

Framework-free: the service (``api``) and the command line ask here. State is in the metadata database, keys are files
in the home folder.
"""
