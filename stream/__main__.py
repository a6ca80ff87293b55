"""`python -m ispeed.stream` is `isp-stream`."""

from .entry import stream

if __name__ == "__main__":
    raise SystemExit(stream())
