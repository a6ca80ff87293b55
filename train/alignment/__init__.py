"""`isp-align`: pairs of a raw frame and another camera's picture, brought to lie on each other pixel for pixel.

`settings` says what is done, `register` finds how the two lie coarsely, `look` makes the frame look like the picture,
`flow` and `refine` find what is left of displacement, `mask` where that can be relied on, `checks` refuses pairs,
`align` brings them together for a pair, `run` for a data set, `page` tells.
"""
