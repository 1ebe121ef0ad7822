"""The pages that people open in a browser: server-rendered, by subject, with little script and nothing from elsewhere.

Pages ask the same parts as the routes of the API (`Service`, `access`, `tasks`); they decide nothing themselves. What
a page shows is put together here, how it looks is in ``templates`` and ``static``.
"""
