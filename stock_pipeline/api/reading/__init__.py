"""What routes read: from publications, the lake, the model store and reports, brought into the form of answers.

No module here knows of requests; each can be called from a thread.
"""
