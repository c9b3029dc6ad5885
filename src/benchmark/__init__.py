"""Speed and memory of each stage from file to metric, beside the alternatives.

A measurement is a race: each contender works in a process of its own, and they take turns, so that
what else the machine does meets all of them.
"""
