"""The classic ISP as one fused pass over a stripe of rows, and the colour statistics it takes its gains from.

The pass keeps five rows of scaled samples per thread, each split into its even and odd columns, so that every operand
of the demosaic is a run of neighbouring floats. Two symmetries leave a single demosaic loop:

* CFA phase. A mosaic that does not begin with red is read as one that begins a column and/or a row earlier, with the
  missing samples reflected.
* Row kind. A row of green and blue is a row of red and green with the two colours exchanged, shifted by one column.
  In both, the pairs of a row are (chroma site, green site); `x` names the chroma of the row, `y` the other one.

Indices are unsigned throughout: for signed ones Numba inserts the wrap-around of negative indices, which turns
vector loads into gathers.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import float_bits, full_width, inlined, inner, kernel, prefetch_for_write

F = np.float32
U = np.uintp
U1, U2, U3, U5 = U(1), U(2), U(3), U(5)
ROWS = 5  # the demosaic reads two rows up and two down
CACHE_LINE = 64
PAD = 4  # floats in front of and behind each half row, for reflected samples


@inlined
def _sample(raw, bits, index):
    """Sample number `index` of a frame, DN; `bits` per sample tell packed formats (10, 12) from whole ones."""
    if bits == 12:
        at = U(index * 12 // 8)
        pair = np.int64(raw[at]) | np.int64(raw[at + U1]) << 8
        return (pair >> (4 if index & 1 else 0)) & 0xFFF
    if bits == 10:
        at = U(index * 10 // 8)
        pair = np.int64(raw[at]) | np.int64(raw[at + U1]) << 8
        return (pair >> (index % 4 * 2)) & 0x3FF
    return np.int64(raw[U(index)])


@inner
def _load_whole(raw, start, width, row, even, odd, even_gain, even_offset, odd_gain, odd_offset, limit):
    full_width()
    start, even, odd = U(start), U(even), U(odd)
    for k in range(width // 2):
        i = U(k)
        row[even + i] = min(F(raw[start + U2 * i]) * even_gain + even_offset, limit)
        row[odd + i] = min(F(raw[start + U2 * i + U1]) * odd_gain + odd_offset, limit)
    if width & 1:
        i = U(width // 2)
        row[even + i] = min(F(raw[start + U2 * i]) * even_gain + even_offset, limit)


@inner
def _load_12p(raw, start, width, row, even, odd, even_gain, even_offset, odd_gain, odd_offset, limit):
    full_width()
    start, even, odd = U(start), U(even), U(odd)
    for k in range(width // 2):
        i = U(k)
        b0 = np.int32(raw[start + U3 * i])
        b1 = np.int32(raw[start + U3 * i + U1])
        b2 = np.int32(raw[start + U3 * i + U2])
        row[even + i] = min(F(np.int32(b0 | (b1 & 15) << 8)) * even_gain + even_offset, limit)
        row[odd + i] = min(F(np.int32(b1 >> 4 | b2 << 4)) * odd_gain + odd_offset, limit)


@inner
def _load_10p(raw, start, width, row, even, odd, even_gain, even_offset, odd_gain, odd_offset, limit):
    full_width()
    start, even, odd = U(start), U(even), U(odd)
    for k in range(width // 4):
        i = U(k)
        b0 = np.int32(raw[start + U5 * i])
        b1 = np.int32(raw[start + U5 * i + U1])
        b2 = np.int32(raw[start + U5 * i + U2])
        b3 = np.int32(raw[start + U5 * i + U3])
        b4 = np.int32(raw[start + U5 * i + U2 + U2])
        row[even + U2 * i] = min(F(np.int32(b0 | (b1 & 3) << 8)) * even_gain + even_offset, limit)
        row[odd + U2 * i] = min(F(np.int32(b1 >> 2 | (b2 & 15) << 6)) * odd_gain + odd_offset, limit)
        row[even + U2 * i + U1] = min(F(np.int32(b2 >> 4 | (b3 & 63) << 4)) * even_gain + even_offset, limit)
        row[odd + U2 * i + U1] = min(F(np.int32(b3 >> 6 | b4 << 2)) * odd_gain + odd_offset, limit)


@inlined
def _stand_in(raw, bits, defects, d):
    """Mean of the good neighbours of defect `d`, DN."""
    total, count = 0, 0
    for k in range(1, defects.shape[1]):
        if defects[d, k] >= 0:
            total += _sample(raw, bits, defects[d, k])
            count += 1
    return F(total) / F(count)


@inlined
def _reflect(y, height):
    """Row that stands for row `y` outside the frame: mirrored at the first and last row, which are not repeated."""
    y = abs(y) % (2 * height - 2)
    return 2 * height - 2 - y if y >= height else y


@inner
def _flatten(row, start, count, gains, above, below, share):
    """Half a row times its gains, which lie between those of two rows of nodes, limited to 1."""
    full_width()
    start, above, below = U(start), U(above), U(below)
    for k in range(count):
        i = U(k)
        gain = gains[above + i]
        gain += share * (gains[below + i] - gain)
        row[start + i] = min(row[start + i] * gain, F(1))


@inner
def _load_row(raw, shape, y, row, base, scale, defect_rows, defects, flat, pads):
    """Row `y` of the frame as scaled samples into `row` at `base`: half rows, reflected ends, mended defects, gains.

    scale: float32 [3, 2], factor and summand of R, G, B.
    """
    width, height, bits, pitch, x_phase, y_phase = shape
    y = _reflect(y, height)
    blue = (y + y_phase) & 1
    # colours of the two half rows, and which of them the even columns of the frame fall into
    left, right = (1, 2) if blue else (0, 1)
    even, odd = (base + pitch, base + 1) if x_phase else (base, base + pitch)
    if x_phase:
        left, right = right, left
    gains, before, share, nodes, columns = flat
    limit = F(1) if share.size == 0 else F(math.inf)
    e0, e1, o0, o1 = scale[left, 0], scale[left, 1], scale[right, 0], scale[right, 1]
    if bits == 12:
        _load_12p(raw, y * width * 3 // 2, width, row, even, odd, e0, e1, o0, o1, limit)
    elif bits == 10:
        _load_10p(raw, y * width * 5 // 4, width, row, even, odd, e0, e1, o0, o1, limit)
    else:
        _load_whole(raw, y * width, width, row, even, odd, e0, e1, o0, o1, limit)
    for d in range(defect_rows[y], defect_rows[y + 1]):
        x, mean = defects[d, 0], _stand_in(raw, bits, defects, d)
        if x & 1:
            row[odd + x // 2] = min(mean * o0 + o1, limit)
        else:
            row[even + x // 2] = min(mean * e0 + e1, limit)
    if share.size:
        above = ((y & 1) * 2 * nodes + before[y]) * columns
        _flatten(row, even, (width + 1) // 2, gains, above, above + columns, share[y])
        above += nodes * columns
        _flatten(row, odd, width // 2, gains, above, above + columns, share[y])
    for k in range(pads.shape[0]):
        row[base + pads[k, 0]] = row[base + pads[k, 1]]


@inner
def _clamp_row(rows, up, here, down, out, at, count):
    """Limit each sample to the range of its four nearest neighbours of the same colour."""
    full_width()
    up, here, down, at = U(up), U(here), U(down), U(at)
    for k in range(count):
        i = U(k)
        a, b, c, d = rows[up + i], rows[down + i], rows[here + i - U1], rows[here + i + U1]
        out[at + i] = min(max(rows[here + i], min(min(a, b), min(c, d))), max(max(a, b), max(c, d)))


@inlined
def _tone(x, t0, t1, t2, t3, t4, slope, toe):
    """Linear light to a code, in the lowest byte: a quartic of the square root, and a straight line up to `toe`.

    Both are given plus 2^23, where floats are whole numbers: the last addition rounds, and no conversion is needed.
    """
    x = min(max(x, F(0)), F(1))
    s = math.sqrt(x)
    curve = (((t4 * s + t3) * s + t2) * s + t1) * s + t0
    return float_bits(slope * x + F(1 << 23) if x < toe else curve)


@inner
def _demosaic_row(s, chroma, green, count, out, pitch, matrix, tone):
    """Demosaic, colour matrix and tone curve for `count` pairs of one row.

    Gradient-corrected linear interpolation after H. Malvar, L. He, R. Cutler, "High-quality linear interpolation for
    demosaicing of Bayer-patterned color images", ICASSP 2004; coefficients as published.

    s: scaled samples; chroma, green: where the two half rows of rows -2 ... +2 begin in it.
    out: uint16 [3, pitch], two codes a word, of x, green and y; matrix: float32 [9] from and to (x, green, y).
    """
    full_width()
    c0, c1, c2, c3, c4 = U(chroma[0]), U(chroma[1]), U(chroma[2]), U(chroma[3]), U(chroma[4])
    g0, g1, g2, g3, g4 = U(green[0]), U(green[1]), U(green[2]), U(green[3]), U(green[4])
    m0, m1, m2, m3, m4 = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4]
    m5, m6, m7, m8 = matrix[5], matrix[6], matrix[7], matrix[8]
    t0, t1, t2, t3, t4, slope, toe = tone[0], tone[1], tone[2], tone[3], tone[4], tone[5], tone[6]
    plane = U(pitch)
    for k in range(count):
        i = U(k)
        x, x_right = s[c2 + i], s[c2 + i + U1]
        g_left, g = s[g2 + i - U1], s[g2 + i]
        far = s[c0 + i] + s[c4 + i] + s[c2 + i - U1] + x_right
        y_left, y_right = s[g1 + i - U1] + s[g3 + i - U1], s[g1 + i] + s[g3 + i]
        g_near, g_next = s[c1 + i] + s[c3 + i], s[c1 + i + U1] + s[c3 + i + U1]
        g_at_x = F(1 / 2) * x + F(1 / 4) * (g_near + g_left + g) - F(1 / 8) * far
        y_at_x = F(3 / 4) * x + F(1 / 4) * (y_left + y_right) - F(3 / 16) * far
        diagonal = g_near + g_next
        across, along = g_left + s[g2 + i + U1], s[g0 + i] + s[g4 + i]
        x_at_g = F(5 / 8) * g + F(1 / 2) * (x + x_right) - F(1 / 8) * (diagonal + across) + F(1 / 16) * along
        y_at_g = F(5 / 8) * g + F(1 / 2) * y_right - F(1 / 8) * (diagonal + along) + F(1 / 16) * across
        x0 = _tone(m0 * x + m1 * g_at_x + m2 * y_at_x, t0, t1, t2, t3, t4, slope, toe)
        x1 = _tone(m0 * x_at_g + m1 * g + m2 * y_at_g, t0, t1, t2, t3, t4, slope, toe)
        out[i] = np.uint16(x0 | x1 << 8)
        x0 = _tone(m3 * x + m4 * g_at_x + m5 * y_at_x, t0, t1, t2, t3, t4, slope, toe)
        x1 = _tone(m3 * x_at_g + m4 * g + m5 * y_at_g, t0, t1, t2, t3, t4, slope, toe)
        out[plane + i] = np.uint16(x0 | x1 << 8)
        x0 = _tone(m6 * x + m7 * g_at_x + m8 * y_at_x, t0, t1, t2, t3, t4, slope, toe)
        x1 = _tone(m6 * x_at_g + m7 * g + m8 * y_at_g, t0, t1, t2, t3, t4, slope, toe)
        out[U2 * plane + i] = np.uint16(x0 | x1 << 8)


@inner
def _interleave(codes, red, green, blue, width, srgb, start):
    full_width()
    red, green, blue, start = U(red), U(green), U(blue), U(start)
    for k in range(width):
        i = U(k)
        srgb[start + U3 * i] = codes[red + i]
        srgb[start + U3 * i + U1] = codes[green + i]
        srgb[start + U3 * i + U2] = codes[blue + i]


@kernel
def develop_bayer(raw, srgb, first, last, shape, scale, matrices, tone, defect_rows, defects, flat, pads, clamp, work):
    """Rows `first` to `last` - 1 of a Bayer frame to sRGB.

    Args:
        raw: uint8 or uint16 [N], the frame.
        srgb: uint8 [H*W*3], written.
        shape: (width, height, bits per sample in memory, pitch, x phase, y phase).
        scale: float32 [3, 2], factor and summand that bring R, G, B samples to [0, 1] and white balance.
        matrices: float32 [2, 9], colour matrix for (R, G, B), and reversed for (B, G, R).
        tone: float32 [7], see `_tone`.
        defect_rows: int64 [H + 1], where the defects of a row begin.
        defects: int64 [D, 9], column, and sample numbers of good neighbours or -1.
        flat: `flat_field.RowTables`, empty ones without a flat field.
        pads: int64 [P, 2], places of a row buffer to fill by reflection, and what with.
        clamp: limit samples to the range of their neighbours.
        work: buffers of this thread: float32 rows, float32 rows before clamping, uint16 codes, the same as uint8.
    """
    width, _, _, pitch, x_phase, y_phase = shape
    rows, before, words, codes = work
    chroma, green = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for ahead in range(first - 2, last + 2):
        base = (ahead + 2) % ROWS * 2 * pitch + PAD
        if clamp:
            for k in range(3):
                at = k * 2 * pitch + PAD
                _load_row(raw, shape, ahead + 2 * k - 2, before, at, scale, defect_rows, defects, flat, pads)
            for half in (0, pitch):
                up = PAD + half
                _clamp_row(before, up, up + 2 * pitch, up + 4 * pitch, rows, base + half, pitch - 2 * PAD)
            for k in range(pads.shape[0]):
                rows[base + pads[k, 0]] = rows[base + pads[k, 1]]
        else:
            _load_row(raw, shape, ahead, rows, base, scale, defect_rows, defects, flat, pads)
        y = ahead - 2
        if y < first:
            continue
        blue = (y + y_phase) & 1
        # of a blue row the pairs begin one column earlier: skip = columns in front of the frame
        skip = (x_phase + blue) & 1
        for k in range(ROWS):
            half = (y + k) % ROWS * 2 * pitch + PAD
            chroma[k] = half + pitch - (0 if x_phase else 1) if blue else half
            green[k] = half + (1 if x_phase else 0) if blue else half + pitch
        # sRGB rows are written in bursts to memory that no cache holds; asked for now, the lines are there by then
        for k in range(y * width * 3, (y + 1) * width * 3, CACHE_LINE):
            prefetch_for_write(srgb, U(k))
        _demosaic_row(rows, chroma, green, (width + skip + 1) // 2, words, pitch, matrices[blue], tone)
        red_at, blue_at = (4 * pitch, 0) if blue else (0, 4 * pitch)
        _interleave(codes, red_at + skip, 2 * pitch + skip, blue_at + skip, width, srgb, y * width * 3)


@inner
def _grey_row(raw, start, width, gain, offset, tone, codes):
    full_width()
    t0, t1, t2, t3, t4, slope, toe = tone[0], tone[1], tone[2], tone[3], tone[4], tone[5], tone[6]
    start = U(start)
    for k in range(width):
        i = U(k)
        codes[i] = np.uint8(_tone(F(raw[start + i]) * gain + offset, t0, t1, t2, t3, t4, slope, toe))


@kernel
def develop_mono(raw, srgb, first, last, width, scale, tone, defect_rows, defects, codes):
    """Rows `first` to `last` - 1 of a Mono8 frame to grey sRGB.

    scale: float32 [3, 2], of which the first row counts; codes: uint8 [W], buffer of this thread; the rest as above.
    """
    gain, offset = scale[0, 0], scale[0, 1]
    t0, t1, t2, t3, t4, slope, toe = tone[0], tone[1], tone[2], tone[3], tone[4], tone[5], tone[6]
    for y in range(first, last):
        for k in range(y * width * 3, (y + 1) * width * 3, CACHE_LINE):
            prefetch_for_write(srgb, U(k))
        _grey_row(raw, y * width, width, gain, offset, tone, codes)
        for d in range(defect_rows[y], defect_rows[y + 1]):
            light = _stand_in(raw, 8, defects, d) * gain + offset
            codes[defects[d, 0]] = np.uint8(_tone(light, t0, t1, t2, t3, t4, slope, toe))
        _interleave(codes, 0, 0, 0, width, srgb, y * width * 3)


@inlined
def _in_order(a, b, c, d, x_phase, y_phase):
    """A 2x2 quad in reading order as R, G, G, B."""
    if x_phase:
        a, b, c, d = b, a, d, c
    if y_phase:
        a, b, c, d = c, d, a, b
    return a, b, c, d


@kernel
def colour_sums(raw, shape, row_step, column_step, limit, sums):
    """Sums over a grid of 2x2 quads without a clipped sample.

    Args:
        raw, shape: as for `develop_bayer`.
        row_step, column_step: even, distance of the quads.
        limit: a quad with a sample of at least this is left out.
        sums: float64 [4], written: R, both G, B, DN, and the number of quads.
    """
    width, height, bits, _, x_phase, y_phase = shape
    red, green, blue, count = 0, 0, 0, 0
    for y in range(0, height - 1, row_step):
        for x in range(0, width - 1, column_step):
            at = y * width + x
            a, b = _sample(raw, bits, at), _sample(raw, bits, at + 1)
            c, d = _sample(raw, bits, at + width), _sample(raw, bits, at + width + 1)
            if max(max(a, b), max(c, d)) >= limit:
                continue
            a, b, c, d = _in_order(a, b, c, d, x_phase, y_phase)
            red += a
            green += b + c
            blue += d
            count += 1
    sums[0], sums[1], sums[2], sums[3] = red, green, blue, count


@inlined
def _gain(flat, y, x):
    """The gain of the pixel at (x, y)."""
    gains, before, share, nodes, columns = flat
    at = (((y & 1) * 2 + (x & 1)) * nodes + before[y]) * columns + x // 2
    return gains[at] + share[y] * (gains[at + columns] - gains[at])


@kernel
def flat_colour_sums(raw, shape, row_step, column_step, limit, black, flat, sums):
    """`colour_sums` of what a flat field makes of the samples, with black where it was: whether a sample is clipped
    goes by what the sensor gave. A kernel of its own, so that the other one's loop holds nothing of it.

    black: black level, DN; flat: `flat_field.RowTables`, not empty.
    """
    width, height, bits, _, x_phase, y_phase = shape
    red, green, blue, count = 0.0, 0.0, 0.0, 0
    for y in range(0, height - 1, row_step):
        for x in range(0, width - 1, column_step):
            at = y * width + x
            a, b = _sample(raw, bits, at), _sample(raw, bits, at + 1)
            c, d = _sample(raw, bits, at + width), _sample(raw, bits, at + width + 1)
            if max(max(a, b), max(c, d)) >= limit:
                continue
            p, q = (a - black) * _gain(flat, y, x), (b - black) * _gain(flat, y, x + 1)
            r, s = (c - black) * _gain(flat, y + 1, x), (d - black) * _gain(flat, y + 1, x + 1)
            p, q, r, s = _in_order(p, q, r, s, x_phase, y_phase)
            red += p
            green += q + r
            blue += s
            count += 1
    sums[0], sums[1], sums[2] = red + count * black, green + 2 * count * black, blue + count * black
    sums[3] = count
