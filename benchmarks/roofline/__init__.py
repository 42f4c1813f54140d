"""How fast this machine multiplies and moves memory, and how far the towers are from that.

Measured, not looked up: what a data sheet promises is not what a virtual machine with two cores gives.
"""
