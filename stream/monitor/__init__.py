"""The monitor: a page that shows the live picture, what the pipeline does, and lets the camera be set.

A process of its own, which the main process starts (`python -m ispeed.stream.monitor CHANNEL_FD`). It reads the sRGB
rings and the status messages like any subscriber, and asks for changes over the control socket like any program.
"""
