"""HTTP around the service: bytes become requests within limits of size and time, answers become each API's own form.

`protocol` and `guard` know sockets and time, `app` knows who may ask what, one file an API knows its words. Nothing
here computes: an API turns its words into inputs for the catalogue and the rows that come back into its words.
"""
