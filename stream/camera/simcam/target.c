/* The target: a spinning sector star, a slanted edge, 24 colour patches and a grey ramp before a grey wall, seen by
 * a colour sensor with shot and read noise. Rendered in linear light, row by row for all frames of the loop at once;
 * the star makes one turn per loop, everything else stands still.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

/* ---- the sensor ----------------------------------------------------------------------------------------------- */

/* Linear sRGB to the sensor's channels: green sees most, and every filter lets its neighbours' light through. The
 * last row is the same sensor without filters. The same numbers stand in simcam/__init__.py. */
static const float response[CHANNEL_COUNT][3] = {
    [CHANNEL_RED] = {0.42f, 0.12f, 0.02f},
    [CHANNEL_GREEN] = {0.12f, 0.75f, 0.13f},
    [CHANNEL_BLUE] = {0.02f, 0.16f, 0.46f},
    [CHANNEL_MONO] = {0.25f, 0.60f, 0.15f},
};
static const float reference_exposure = 500;      /* us; with 0 dB, white (1, 1, 1) then gives */
static const float reference_signal = 0.8f;       /* this share of full scale in green */
static const float full_well = 10000;             /* electrons at full scale with 0 dB */
static const float read_noise = 4;                /* electrons, rms */
enum { NOISE_LENGTH = 1 << 16 };

/* ---- what stands before it ------------------------------------------------------------------------------------ */

/* The 24 patches of the classic chart, as 8-bit sRGB. */
static const uint8_t patches[24][3] = {
    {115, 82, 68},  {194, 150, 130}, {98, 122, 157},  {87, 108, 67},   {133, 128, 177}, {103, 189, 170},
    {214, 126, 44}, {80, 91, 166},   {193, 90, 99},   {94, 60, 108},   {157, 188, 64},  {224, 163, 46},
    {56, 61, 150},  {70, 148, 73},   {175, 54, 60},   {231, 199, 31},  {187, 86, 149},  {8, 133, 161},
    {243, 243, 242}, {200, 200, 200}, {160, 160, 160}, {122, 122, 121}, {85, 85, 85},    {52, 52, 52},
};
enum { PATCH_COLUMNS = 6, PATCH_ROWS = 4, SECTORS = 18 };

/* Places, as shares of the image's width and height. */
typedef struct {
    float left, top, right, bottom;
} place_t;
static const place_t chart_place = {0.54f, 0.12f, 0.97f, 0.50f};
static const place_t edge_place = {0.54f, 0.55f, 0.97f, 0.83f};
static const place_t ramp_place = {0.03f, 0.88f, 0.97f, 0.97f};
static const float star_x = 0.28f, star_y = 0.56f, star_radius = 0.26f; /* radius: of the shorter side */
static const float edge_slope = 0.0875f;                                  /* tan 5 degrees */
static const float pi = 3.14159265f;

typedef float rgb_t[3];
static const rgb_t wall = {0.12f, 0.12f, 0.12f}, dark = {0.03f, 0.03f, 0.03f}, light = {0.85f, 0.85f, 0.85f};
static const rgb_t mark = {0.75f, 0.12f, 0.08f}; /* one sector is red, so that a turn can be told from a step */

/* ---- painting one row ----------------------------------------------------------------------------------------- */

typedef struct {
    const scene_t *scene;
    float level[CHANNEL_COUNT]; /* share of full scale per unit of response */
    float unit[CHANNEL_COUNT];  /* share of full scale per electron */
    float black, span, full;    /* codes: black level, full scale above it, largest code */
    float *noise;               /* NOISE_LENGTH + SENSOR_MAX normally distributed numbers */
} painter_t;

/* Rows of one thread. */
typedef struct {
    const painter_t *painter;
    uint32_t first_row, row_step;
    double sum;
    bool started;
    pthread_t thread;
    float still[SENSOR_MAX], moving[SENSOR_MAX];       /* signal as a share of full scale */
    float shot[SENSOR_MAX], read[SENSOR_MAX];          /* noise variance: signal * shot + read */
    float phase[SENSOR_MAX], slope[SENSOR_MAX];        /* of the star: sectors, sector widths in pixels */
    float tone[3][SENSOR_MAX];                         /* of the star: dark, light, mark */
    uint16_t samples[SENSOR_MAX];
} work_t;

static void signal_of(const painter_t *painter, uint32_t y, const rgb_t colour, float by_parity[2]) {
    for (unsigned x = 0; x < 2; x++) {
        int channel = channel_at(painter->scene->request.format->cfa, x, y);
        const float *weight = response[channel];
        by_parity[x] = painter->level[channel] *
                       (weight[0] * colour[0] + weight[1] * colour[1] + weight[2] * colour[2]);
    }
}

/* Pixel limits of a place, in the window: half-open, and perhaps beyond it. */
typedef struct {
    int left, top, right, bottom;
} box_t;

static int clip(int value, int limit) { return value < 0 ? 0 : value > limit ? limit : value; }

static bool in_rows(box_t box, uint32_t y) { return (int)y >= box.top && (int)y < box.bottom; }

static box_t box_of(const scene_request_t *request, place_t place) {
    float width = (float)request->width, height = (float)request->height;
    int x = (int)request->offset_x, y = (int)request->offset_y;
    return (box_t){(int)(place.left * width) - x, (int)(place.top * height) - y, (int)(place.right * width) - x,
                   (int)(place.bottom * height) - y};
}

static void paint(float *row, int left, int right, const float by_parity[2]) {
    for (int x = left; x < right; x++) row[x] = by_parity[x & 1];
}

static float linear_of_srgb(uint8_t code) {
    float value = (float)code / 255;
    return value <= 0.04045f ? value / 12.92f : powf((value + 0.055f) / 1.055f, 2.4f);
}

static void paint_chart(work_t *work, const scene_request_t *request, uint32_t y) {
    for (int i = 0; i < PATCH_COLUMNS * PATCH_ROWS; i++) {
        float width = (chart_place.right - chart_place.left) / PATCH_COLUMNS;
        float height = (chart_place.bottom - chart_place.top) / PATCH_ROWS;
        float left = chart_place.left + width * (float)(i % PATCH_COLUMNS);
        float top = chart_place.top + height * (float)(i / PATCH_COLUMNS);
        box_t box = box_of(request, (place_t){left, top, left + 0.9f * width, top + 0.9f * height});
        if (!in_rows(box, y)) continue;
        rgb_t colour;
        for (int c = 0; c < 3; c++) colour[c] = linear_of_srgb(patches[i][c]);
        float signal[2];
        signal_of(work->painter, y, colour, signal);
        int right = clip(box.right, (int)request->width);
        paint(work->still, clip(box.left, right), right, signal);
    }
}

static float unit_clamp(float value) { return value < 0 ? 0 : value > 1 ? 1 : value; }

static void paint_edge(work_t *work, const scene_request_t *request, uint32_t y) {
    box_t box = box_of(request, edge_place);
    if (!in_rows(box, y)) return;
    float low[2], high[2];
    signal_of(work->painter, y, dark, low);
    signal_of(work->painter, y, light, high);
    float middle = (float)(box.left + box.right) / 2 + ((float)y - (float)(box.top + box.bottom) / 2) * edge_slope;
    int right = clip(box.right, (int)request->width);
    for (int x = clip(box.left, right); x < right; x++) {
        float share = unit_clamp(0.5f + (float)x - middle);
        work->still[x] = low[x & 1] + share * (high[x & 1] - low[x & 1]);
    }
}

static void paint_ramp(work_t *work, const scene_request_t *request, uint32_t y) {
    box_t box = box_of(request, ramp_place);
    if (!in_rows(box, y)) return;
    float full[2];
    signal_of(work->painter, y, (rgb_t){1, 1, 1}, full);
    int right = clip(box.right, (int)request->width);
    for (int x = clip(box.left, right); x < right; x++)
        work->still[x] = full[x & 1] * (float)(x - box.left) / (float)(box.right - box.left);
}

/* ---- the star ------------------------------------------------------------------------------------------------- */

/* The part of row y that the star covers; also lays out what paint_star needs there. */
static box_t lay_out_star(work_t *work, const scene_request_t *request, uint32_t y) {
    float width = (float)request->width, height = (float)request->height;
    float radius = star_radius * (width < height ? width : height);
    float centre_x = star_x * width - (float)request->offset_x;
    float dy = (float)y - (star_y * height - (float)request->offset_y);
    if (dy * dy >= radius * radius) return (box_t){0, 0, 0, 0};
    float half = sqrtf(radius * radius - dy * dy);
    int left = clip((int)ceilf(centre_x - half), (int)request->width);
    int right = clip((int)floorf(centre_x + half) + 1, (int)request->width);
    float tones[3][2];
    signal_of(work->painter, y, dark, tones[0]);
    signal_of(work->painter, y, light, tones[1]);
    signal_of(work->painter, y, mark, tones[2]);
    for (int x = left; x < right; x++) {
        float dx = (float)x - centre_x, angle = atan2f(dy, dx);
        work->phase[x] = (angle / (2 * pi) + 0.5f) * SECTORS; /* 0 to SECTORS; whole numbers: middles of light ones */
        work->slope[x] = 2 * pi * sqrtf(dx * dx + dy * dy) / SECTORS;
        for (int i = 0; i < 3; i++) work->tone[i][x] = tones[i][x & 1];
    }
    return (box_t){left, 0, right, 0};
}

static void paint_star(work_t *work, int left, int right, float turned) {
    for (int x = left; x < right; x++) {
        float phase = work->phase[x] + turned; /* below 2 * SECTORS */
        int sector = (int)(phase + 0.5f);
        float away = fabsf(phase - (float)sector); /* 0 in the middle of a light sector, 0.5 in that of a dark one */
        float share = unit_clamp(0.5f + (0.25f - away) * work->slope[x]);
        bool marked = (sector == 0) | (sector == SECTORS) | (sector == 2 * SECTORS);
        float bright = marked ? work->tone[2][x] : work->tone[1][x];
        work->moving[x] = work->tone[0][x] + share * (bright - work->tone[0][x]);
    }
}

/* ---- noise and quantisation ----------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t value) { /* splitmix64 */
    value += 0x9E3779B97F4A7C15u;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 27) * 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

static float uniform(uint64_t seed) { return ((float)(mix(seed) >> 40) + 0.5f) / (float)(1 << 24); }

/* One long row of noise; every row of every frame starts at another place in it. Much cheaper than fresh numbers for
 * each pixel, and no eye or statistic over a frame sees the difference. */
static float *make_noise(uint32_t seed) {
    size_t count = NOISE_LENGTH + SENSOR_MAX;
    float *noise = malloc(count * sizeof *noise);
    for (size_t i = 0; noise && i < count; i += 2) {
        uint64_t key = (uint64_t)seed << 32 | i;
        float radius = sqrtf(-2 * logf(uniform(key))), angle = 2 * pi * uniform(key + 1);
        noise[i] = radius * cosf(angle);
        noise[i + 1] = radius * sinf(angle);
    }
    return noise;
}

static void expose(work_t *work, const float *signal, uint32_t y, uint32_t frame) {
    const painter_t *painter = work->painter;
    const scene_request_t *request = &painter->scene->request;
    uint64_t key = mix(request->seed) + ((uint64_t)frame << 32 | y);
    const float *noise = painter->noise + mix(key) % NOISE_LENGTH;
    float strength = request->noise ? 1 : 0, offset = painter->black + 0.5f, full = painter->full;
    for (uint32_t x = 0; x < request->width; x++) {
        float value = signal[x] + strength * noise[x] * sqrtf(signal[x] * work->shot[x] + work->read[x]);
        value = offset + value * painter->span;
        value = value < 0 ? 0 : value;
        work->samples[x] = (uint16_t)(int)(value > full ? full : value);
    }
    uint8_t *image = painter->scene->cache + frame * painter->scene->image_bytes;
    pack_row(request->format, work->samples, request->width, image + y * painter->scene->row_bytes);
}

/* ---- all rows ------------------------------------------------------------------------------------------------- */

static void render_row(work_t *work, uint32_t y) {
    const painter_t *painter = work->painter;
    const scene_request_t *request = &painter->scene->request;
    float background[2];
    signal_of(painter, y, wall, background);
    paint(work->still, 0, (int)request->width, background);
    paint_chart(work, request, y);
    paint_edge(work, request, y);
    paint_ramp(work, request, y);
    for (uint32_t x = 0; x < request->width; x++) {
        float unit = painter->unit[channel_at(request->format->cfa, x, y)];
        work->shot[x] = unit;
        work->read[x] = read_noise * unit * read_noise * unit;
        work->sum += work->still[x];
    }
    box_t star = lay_out_star(work, request, y);
    memcpy(work->moving, work->still, request->width * sizeof *work->still);
    for (uint32_t frame = 0; frame < painter->scene->frames; frame++) {
        paint_star(work, star.left, star.right, (float)SECTORS * (float)frame / (float)painter->scene->frames);
        expose(work, work->moving, y, frame);
    }
}

static void *render_rows(void *argument) {
    work_t *work = argument;
    for (uint32_t y = work->first_row; y < work->painter->scene->request.height; y += work->row_step)
        render_row(work, y);
    return NULL;
}

static bool render_in_threads(scene_t *scene, const painter_t *painter) {
    enum { THREADS_MAX = 4 };
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (uint32_t)cores;
    work_t *works = calloc(threads, sizeof *works);
    if (!works) return false;
    for (uint32_t i = 0; i < threads; i++) {
        works[i].painter = painter;
        works[i].first_row = i;
        works[i].row_step = threads;
        works[i].started = i > 0 && pthread_create(&works[i].thread, NULL, render_rows, &works[i]) == 0;
    }
    double sum = 0;
    for (uint32_t i = 0; i < threads; i++) {
        if (works[i].started)
            pthread_join(works[i].thread, NULL);
        else
            render_rows(&works[i]);
        sum += works[i].sum;
    }
    free(works);
    scene->mean = sum / ((double)scene->request.width * scene->request.height);
    return true;
}

bool target_render(scene_t *scene) {
    const scene_request_t *request = &scene->request;
    float gain = powf(10, (float)request->look.gain / 20);
    float codes = ldexpf(1, request->format->depth - 12);
    painter_t painter = {.scene = scene, .full = (float)((1u << request->format->depth) - 1)};
    painter.black = (float)request->look.black12 * codes;
    painter.span = painter.full - 64 * codes; /* full scale above the usual black level, whatever is set */
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        float balance = i == CHANNEL_MONO ? 1 : (float)request->look.balance[i];
        painter.unit[i] = gain * balance / full_well;
        painter.level[i] = reference_signal * (float)request->look.exposure / reference_exposure * gain * balance;
    }
    painter.noise = make_noise(request->seed);
    bool done = painter.noise && render_in_threads(scene, &painter);
    free(painter.noise);
    return done;
}
