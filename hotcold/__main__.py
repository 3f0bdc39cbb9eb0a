"""Owns `python -m hotcold`; leaves everything to `hotcold.main`."""

from hotcold.main import main

main()
