"""Everything that needs Ray: the session, the pool of workers, the groups that fine-tune, the launch files.

It may import what `tasks` may, and `tasks`; `launch/submit.py`, a program, also starts the command line.
"""
