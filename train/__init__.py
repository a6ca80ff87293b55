"""From data to a distilled student. Imports `ispeed.engines`, never `ispeed.stream`."""
