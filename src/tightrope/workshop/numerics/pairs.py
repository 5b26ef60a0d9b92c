"""Codes in pairs, for processors that add two products of bytes in 16 bits.

x86 without VNNI multiplies unsigned by signed bytes with vpmaddubsw: neighbouring products are added in 16 bits, and
what is beyond is cut off without a word. With inputs up to 255 that can happen as soon as two weights of one sign add
up to more than 128. Codes of seven bits never do.
"""

import numpy as np

from tightrope.workshop.numerics.quantized import Codes

MOST = 128
"""255 times this fits in 16 bits."""


def is_paired(codes: Codes) -> bool:
    """Whether codes 2i and 2i + 1 of each row of int8 [out, in], where of one sign, add up to `MOST` at most.

    >>> is_paired(np.array([[127, 1, -64, -64]], np.int8)), is_paired(np.array([[127, 2]], np.int8))
    (True, False)
    """
    wide = np.pad(codes.astype(np.int16), ((0, 0), (0, codes.shape[1] % 2)))
    return bool((np.abs(wide[:, ::2] + wide[:, 1::2]) <= MOST).all() and (wide > -MOST).all())
