"""Whether a device computes what the project needs: every operation against NumPy or the CPU.

The device and the CPU work in processes of their own, since a process cannot hold two targets.
There the reference runs in PyNative mode, so that on the CPU itself graph and eager execution are
compared.
"""
