"""Speed and memory of each stage from file to metric, beside the alternatives.

Each candidate of a measurement works in a process of its own, and they take turns, so that what
else the machine does affects all of them.
"""
