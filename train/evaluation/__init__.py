"""`isp-eval`: how good the pictures are that engines make.

`settings` says what is measured, `opening` and `targets` make frames of it, `developers` are the engines and baselines,
`meters` measure their pictures, `run` brings them together, `tables` and `page` tell.
"""
