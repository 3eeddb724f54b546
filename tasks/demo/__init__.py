"""The demo: small parents, the programs that made them, and the tasks that they are evaluated on.

It imports nothing else of mergefront.
"""
