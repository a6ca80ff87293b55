"""`python -m ispeed.stream.offline` is `isp-develop`."""

from ..entry import develop

if __name__ == "__main__":
    raise SystemExit(develop())
