"""The demo: a store, an artifact server and three hosts on this machine, under load, through a whole story of deploys.

What runs on each host is the real agent; what is only here plays the world around it.
"""
