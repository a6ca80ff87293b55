/* Pixel formats: their PFNC codes, colour filter arrays and bit packing. */
#include <string.h>

#include "scene.h"

#define BAYER(letters, cfa, code8, code10, code10p, code12, code12p, code16)                                           \
    {"Bayer" letters "8", code8, 8, 8, cfa}, {"Bayer" letters "10", code10, 10, 16, cfa},                              \
        {"Bayer" letters "10p", code10p, 10, 10, cfa}, {"Bayer" letters "12", code12, 12, 16, cfa},                    \
        {"Bayer" letters "12p", code12p, 12, 12, cfa}, {"Bayer" letters "16", code16, 16, 16, cfa}

static const pixel_format_t formats[] = {
    {"Mono8", 0x01080001, 8, 8, CFA_MONO},
    BAYER("RG", CFA_RG, 0x01080009, 0x0110000D, 0x010A0058, 0x01100011, 0x010C0059, 0x0110002F),
    BAYER("GR", CFA_GR, 0x01080008, 0x0110000C, 0x010A0056, 0x01100010, 0x010C0057, 0x0110002E),
    BAYER("GB", CFA_GB, 0x0108000A, 0x0110000E, 0x010A0054, 0x01100012, 0x010C0055, 0x01100030),
    BAYER("BG", CFA_BG, 0x0108000B, 0x0110000F, 0x010A0052, 0x01100013, 0x010C0053, 0x01100031),
};

const pixel_format_t *pixel_format_of(int64_t pfnc) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].pfnc == pfnc) return &formats[i];
    return NULL;
}

int channel_at(cfa_t cfa, unsigned x, unsigned y) {
    /* channel of the top-left pixel's row and column parity: [cfa][y & 1][x & 1] */
    static const uint8_t channels[5][2][2] = {
        {{CHANNEL_RED, CHANNEL_GREEN}, {CHANNEL_GREEN, CHANNEL_BLUE}},
        {{CHANNEL_GREEN, CHANNEL_RED}, {CHANNEL_BLUE, CHANNEL_GREEN}},
        {{CHANNEL_GREEN, CHANNEL_BLUE}, {CHANNEL_RED, CHANNEL_GREEN}},
        {{CHANNEL_BLUE, CHANNEL_GREEN}, {CHANNEL_GREEN, CHANNEL_RED}},
        {{CHANNEL_MONO, CHANNEL_MONO}, {CHANNEL_MONO, CHANNEL_MONO}},
    };
    return channels[cfa][y & 1][x & 1];
}

const char *cfa_name(cfa_t cfa) {
    static const char *const names[] = {"BayerRG", "BayerGR", "BayerGB", "BayerBG", "Mono"};
    return names[cfa];
}

/* ---- packing: PFNC's "p" formats put the lowest bits first, without gaps -------------------------------------------- */

static void pack8(const uint16_t *samples, size_t count, uint8_t *bytes) {
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)samples[i];
}

/* four samples in five bytes */
static void pack10(const uint16_t *samples, size_t count, uint8_t *bytes) {
    for (size_t i = 0; i < count; i += 4, bytes += 5) {
        uint64_t word = samples[i] | (uint64_t)samples[i + 1] << 10 | (uint64_t)samples[i + 2] << 20 |
                        (uint64_t)samples[i + 3] << 30;
        memcpy(bytes, &word, 5);
    }
}

/* two samples in three bytes */
static void pack12(const uint16_t *samples, size_t count, uint8_t *bytes) {
    for (size_t i = 0; i < count; i += 2, bytes += 3) {
        uint32_t word = samples[i] | (uint32_t)samples[i + 1] << 12;
        memcpy(bytes, &word, 3);
    }
}

void pack_row(const pixel_format_t *format, const uint16_t *samples, size_t count, uint8_t *bytes) {
    switch (format->bits) {
    case 8: pack8(samples, count, bytes); break;
    case 10: pack10(samples, count, bytes); break;
    case 12: pack12(samples, count, bytes); break;
    default: memcpy(bytes, samples, count * sizeof *samples);
    }
}

static void unpack8(const uint8_t *bytes, size_t count, uint16_t *samples) {
    for (size_t i = 0; i < count; i++) samples[i] = bytes[i];
}

static void unpack10(const uint8_t *bytes, size_t count, uint16_t *samples) {
    for (size_t i = 0; i < count; i += 4, bytes += 5) {
        uint64_t word = 0;
        memcpy(&word, bytes, 5);
        for (int j = 0; j < 4; j++) samples[i + (size_t)j] = (uint16_t)(word >> 10 * j & 0x3FF);
    }
}

static void unpack12(const uint8_t *bytes, size_t count, uint16_t *samples) {
    for (size_t i = 0; i < count; i += 2, bytes += 3) {
        samples[i] = (uint16_t)(bytes[0] | (bytes[1] & 0x0F) << 8);
        samples[i + 1] = (uint16_t)(bytes[1] >> 4 | bytes[2] << 4);
    }
}

void unpack_row(const pixel_format_t *format, const uint8_t *bytes, size_t count, uint16_t *samples) {
    switch (format->bits) {
    case 8: unpack8(bytes, count, samples); break;
    case 10: unpack10(bytes, count, samples); break;
    case 12: unpack12(bytes, count, samples); break;
    default: memcpy(samples, bytes, count * sizeof *samples);
    }
}
