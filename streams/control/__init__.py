"""The control path: which version of a set serves, and how that changes and is taken back.

All of it is pure: facts, times and acks come in, decisions come out; nothing here reads a
topic, a clock or a random number. `coordinator` is the whole of it on one screen.
"""
