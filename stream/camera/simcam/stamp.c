/* The running frame number: burnt into the top-left corner of every frame of the target, once for eyes (decimal
 * digits) and once for programs (a strip of 32 cells of 4 x 4 pixels, the highest bit first; full scale is one, the
 * black level is zero; narrow images fold the strip into several lines of cells).
 */
#include <math.h>
#include <string.h>

#include "scene.h"

enum { CELL = 4, CELLS = 32, DIGITS = 8, GLYPH_WIDTH = 6, GLYPH_HEIGHT = 9, SCALE_MAX = 8 };
enum { LINE_MAX = DIGITS * GLYPH_WIDTH * SCALE_MAX };

/* Five columns, seven lines; the highest of five bits is the left column. */
static const uint8_t font[10][7] = {
    {14, 17, 19, 21, 25, 17, 14}, {4, 12, 4, 4, 4, 4, 14},    {14, 17, 1, 2, 4, 8, 31},   {31, 2, 4, 2, 1, 17, 14},
    {2, 6, 10, 18, 31, 2, 2},     {31, 16, 30, 1, 1, 17, 14}, {6, 8, 16, 30, 17, 17, 14}, {31, 1, 2, 4, 8, 8, 8},
    {14, 17, 17, 14, 17, 17, 14}, {14, 17, 17, 15, 1, 2, 12},
};

typedef struct {
    const scene_t *scene;
    uint8_t *image;
    uint16_t zero, one; /* codes */
} stamp_t;

/* Packs one line of samples and repeats it downwards. */
static void put_lines(const stamp_t *stamp, const uint16_t *samples, size_t count, size_t y, size_t lines) {
    size_t row_bytes = stamp->scene->row_bytes;
    uint8_t *first = stamp->image + y * row_bytes;
    pack_row(stamp->scene->request.format, samples, count, first);
    size_t bytes = count * stamp->scene->request.format->bits / 8;
    for (size_t i = 1; i < lines; i++) memcpy(first + i * row_bytes, first, bytes);
}

/* Returns the height of the strip, 0 where there is no room for it. */
static size_t put_strip(const stamp_t *stamp, uint32_t number) {
    size_t per_line = stamp->scene->request.width / CELL;
    if (per_line > CELLS) per_line = CELLS;
    size_t lines = (CELLS + per_line - 1) / per_line;
    if (lines * CELL > stamp->scene->request.height) return 0;
    uint16_t samples[CELLS * CELL];
    for (size_t line = 0; line < lines; line++) {
        size_t count = CELLS - line * per_line < per_line ? CELLS - line * per_line : per_line;
        for (size_t x = 0; x < count * CELL; x++) {
            unsigned bit = CELLS - 1 - (unsigned)(line * per_line + x / CELL);
            samples[x] = number >> bit & 1 ? stamp->one : stamp->zero;
        }
        put_lines(stamp, samples, count * CELL, line * CELL, CELL);
    }
    return lines * CELL;
}

static void put_digits(const stamp_t *stamp, uint64_t number, size_t top) {
    const scene_request_t *request = &stamp->scene->request;
    size_t scale = SCALE_MAX;
    while (scale && (DIGITS * GLYPH_WIDTH * scale > request->width / 4 || top + GLYPH_HEIGHT * scale > request->height))
        scale /= 2;
    if (!scale) return;
    unsigned digits[DIGITS];
    for (int i = DIGITS - 1; i >= 0; i--, number /= 10) digits[i] = (unsigned)(number % 10);
    uint16_t samples[LINE_MAX];
    size_t count = DIGITS * GLYPH_WIDTH * scale;
    for (size_t line = 0; line < GLYPH_HEIGHT; line++) {
        for (size_t x = 0; x < count; x++) {
            size_t column = x / scale % GLYPH_WIDTH;
            bool inside = line >= 1 && line <= 7 && column >= 1;
            unsigned bits = inside ? font[digits[x / scale / GLYPH_WIDTH]][line - 1] : 0;
            samples[x] = inside && bits >> (5 - column) & 1 ? stamp->one : stamp->zero;
        }
        put_lines(stamp, samples, count, top + line * scale, scale);
    }
}

void stamp_number(const scene_t *scene, uint64_t number, const look_t *look, uint8_t *image) {
    unsigned depth = scene->request.format->depth;
    stamp_t stamp = {scene, image, (uint16_t)lrint(ldexp(look->black12, (int)depth - 12)),
                     (uint16_t)((1u << depth) - 1)};
    size_t height = put_strip(&stamp, (uint32_t)number);
    if (height) put_digits(&stamp, number, height + CELL);
}
