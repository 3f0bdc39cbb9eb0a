"""Writes docs/performance.md anew from the kept results."""

from benchmarks.report.page import write_page

if __name__ == "__main__":
    write_page()
