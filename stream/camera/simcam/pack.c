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

/* ---- packing: PFNC's "p" formats put the lowest bits first, without gaps -------------------------------------- */

static void pack8(const uint16_t *samples, size_t count, uint8_t *bytes) {
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)samples[i];
}

/* Four samples in 5 or 6 bytes; `bits` is a constant wherever this is inlined. The bytes move as a word of 4 and the
 * rest one by one: copies of 5 or 6 bytes go through memory and are ten times slower. */
static inline void pack_groups(const uint16_t *samples, size_t count, uint8_t *bytes, unsigned bits) {
    for (size_t i = 0; i < count; i += 4, bytes += bits / 2) {
        uint64_t word = samples[i] | (uint64_t)samples[i + 1] << bits | (uint64_t)samples[i + 2] << 2 * bits |
                        (uint64_t)samples[i + 3] << 3 * bits;
        uint32_t low = (uint32_t)word;
        memcpy(bytes, &low, sizeof low);
        bytes[4] = (uint8_t)(word >> 32);
        if (bits == 12) bytes[5] = (uint8_t)(word >> 40);
    }
}

void pack_row(const pixel_format_t *format, const uint16_t *samples, size_t count, uint8_t *bytes) {
    switch (format->bits) {
    case 8: pack8(samples, count, bytes); break;
    case 10: pack_groups(samples, count, bytes, 10); break;
    case 12: pack_groups(samples, count, bytes, 12); break;
    default: memcpy(bytes, samples, count * sizeof *samples);
    }
}

static void unpack8(const uint8_t *bytes, size_t count, uint16_t *samples) {
    for (size_t i = 0; i < count; i++) samples[i] = bytes[i];
}

static inline void unpack_groups(const uint8_t *bytes, size_t count, uint16_t *samples, unsigned bits) {
    for (size_t i = 0; i < count; i += 4, bytes += bits / 2) {
        uint32_t low;
        memcpy(&low, bytes, sizeof low);
        uint64_t high = bytes[4] | (bits == 12 ? (unsigned)bytes[5] << 8 : 0);
        uint64_t word = high << 32 | low, mask = (1u << bits) - 1;
        samples[i] = (uint16_t)(word & mask);
        samples[i + 1] = (uint16_t)(word >> bits & mask);
        samples[i + 2] = (uint16_t)(word >> 2 * bits & mask);
        samples[i + 3] = (uint16_t)(word >> 3 * bits & mask);
    }
}

void unpack_row(const pixel_format_t *format, const uint8_t *bytes, size_t count, uint16_t *samples) {
    switch (format->bits) {
    case 8: unpack8(bytes, count, samples); break;
    case 10: unpack_groups(bytes, count, samples, 10); break;
    case 12: unpack_groups(bytes, count, samples, 12); break;
    default: memcpy(samples, bytes, count * sizeof *samples);
    }
}
