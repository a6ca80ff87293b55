/* The loop of pictures: a cache of finished images, and the way from there into a buffer. */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "simcam.h"

enum { CACHE_BYTES_MAX = 256 << 20, LOOP_MIN = 2, LOOP_MAX = 64 };

/* ---- looks ---------------------------------------------------------------------------------------------------- */

static double brightness(const look_t *look) { return look->exposure * pow(10, look->gain / 20); }

static bool same_look(const look_t *a, const look_t *b) {
    return a->exposure == b->exposure && a->gain == b->gain && a->black12 == b->black12 &&
           memcmp(a->balance, b->balance, sizeof a->balance) == 0;
}

double scene_mean(const scene_t *scene, const look_t *look) {
    return scene->mean * brightness(look) / brightness(&scene->request.look);
}

/* ---- making the cache ----------------------------------------------------------------------------------------- */

static bool same_request(const scene_request_t *a, const scene_request_t *b) {
    bool same_place = a->format == b->format && a->width == b->width && a->height == b->height &&
                      a->offset_x == b->offset_x && a->offset_y == b->offset_y;
    if (!same_place || a->file_generation != b->file_generation) return false;
    return a->file_generation || (a->seed == b->seed && a->noise == b->noise && same_look(&a->look, &b->look));
}

void scene_release(scene_t *scene) {
    if (scene->cache) munmap(scene->cache, scene->cache_bytes);
    scene->cache = NULL;
}

static void pack_from_file(const scene_t *scene, uint32_t frame, uint8_t *image) {
    const scene_request_t *request = &scene->request;
    uint16_t samples[SENSOR_MAX];
    for (uint32_t y = 0; y < request->height; y++) {
        scene_file_row(scene->file, request->format, frame, request->offset_x, request->offset_y + y, request->width,
                       samples);
        pack_row(request->format, samples, request->width, image + y * scene->row_bytes);
    }
}

GC_ERROR scene_prepare(scene_t *scene, const scene_request_t *request, scene_file_t *file) {
    if (scene->cache && same_request(&scene->request, request)) return GC_ERR_SUCCESS;
    scene_release(scene);
    size_t row_bytes = (size_t)request->width * request->format->bits / 8, image_bytes = row_bytes * request->height;
    size_t room = CACHE_BYTES_MAX / image_bytes;
    size_t frames = file ? file->frames : room < LOOP_MIN ? LOOP_MIN : room > LOOP_MAX ? LOOP_MAX : room;
    size_t cached = frames < room ? frames : room;
    *scene = (scene_t){
        .request = *request,
        .file = file,
        .cache_bytes = cached * image_bytes,
        .row_bytes = row_bytes,
        .image_bytes = image_bytes,
        .frames = (uint32_t)frames,
        .cached = (uint32_t)cached,
    };
    void *map = mmap(NULL, scene->cache_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return fail(GC_ERR_OUT_OF_MEMORY, "no memory for %zu bytes of scene", scene->cache_bytes);
    madvise(map, scene->cache_bytes, MADV_HUGEPAGE); /* a hint: fewer page faults here, faster copies later */
    scene->cache = map;
    if (file) {
        for (uint32_t i = 0; i < scene->cached; i++) pack_from_file(scene, i, scene->cache + i * image_bytes);
    } else if (!target_render(scene)) {
        scene_release(scene);
        return fail(GC_ERR_OUT_OF_MEMORY, "no memory to render the target");
    }
    return GC_ERR_SUCCESS;
}

/* ---- copying out ---------------------------------------------------------------------------------------------- */

/* How a cached code becomes the code of another look: black_to + (code - black_from) * factor. Pixels that were
 * clipped in the cache stay flat when the picture gets darker; rendering anew at the next start mends that. */
typedef struct {
    float black_from, black_to, factor[CHANNEL_COUNT], full;
} change_t;

static change_t change_of(const scene_t *scene, const look_t *look) {
    const look_t *from = &scene->request.look;
    unsigned depth = scene->request.format->depth;
    double codes = ldexp(1, (int)depth - 12), factor = brightness(look) / brightness(from);
    change_t change = {
        .black_from = (float)(from->black12 * codes),
        .black_to = (float)(look->black12 * codes),
        .factor = {[CHANNEL_MONO] = (float)factor},
        .full = (float)((1u << depth) - 1),
    };
    for (int i = 0; i < CHANNEL_MONO; i++) change.factor[i] = (float)(factor * look->balance[i] / from->balance[i]);
    return change;
}

static inline uint16_t change_code(const change_t *change, float code, float factor) {
    float value = change->black_to + (code - change->black_from) * factor + 0.5f;
    value = value < 0 ? 0 : value;
    return (uint16_t)(int)(value > change->full ? change->full : value); /* by way of int: that has SIMD forms */
}

static void copy_changed8(const scene_t *scene, const change_t *change, const uint8_t *from, uint8_t *to) {
    uint8_t table[CHANNEL_COUNT][256];
    for (int channel = 0; channel < CHANNEL_COUNT; channel++)
        for (int code = 0; code < 256; code++)
            table[channel][code] = (uint8_t)change_code(change, (float)code, change->factor[channel]);
    cfa_t cfa = scene->request.format->cfa;
    for (uint32_t y = 0; y < scene->request.height; y++, from += scene->row_bytes, to += scene->row_bytes) {
        const uint8_t *even = table[channel_at(cfa, 0, y)], *odd = table[channel_at(cfa, 1, y)];
        for (size_t x = 0; x < scene->row_bytes; x += 2) {
            to[x] = even[from[x]];
            to[x + 1] = odd[from[x + 1]];
        }
    }
}

static void copy_changed(const scene_t *scene, const change_t *change, const uint8_t *from, uint8_t *to) {
    const pixel_format_t *format = scene->request.format;
    uint32_t width = scene->request.width;
    uint16_t samples[SENSOR_MAX];
    float factors[2][SENSOR_MAX]; /* by row parity */
    for (uint32_t i = 0; i < 2 * width; i++)
        factors[i / width][i % width] = change->factor[channel_at(format->cfa, i % width, i / width)];
    for (uint32_t y = 0; y < scene->request.height; y++, from += scene->row_bytes, to += scene->row_bytes) {
        unpack_row(format, from, width, samples);
        const float *factor = factors[y & 1];
        change_t local = *change; /* the compiler may then assume that samples do not overwrite it */
        for (uint32_t x = 0; x < width; x++) samples[x] = change_code(&local, samples[x], factor[x]);
        pack_row(format, samples, width, to);
    }
}

void scene_copy(const scene_t *scene, uint64_t index, const look_t *look, uint8_t *image) {
    uint32_t frame = (uint32_t)(index % scene->frames);
    const uint8_t *cached = scene->cache + frame * scene->image_bytes;
    if (frame >= scene->cached) {
        pack_from_file(scene, frame, image);
    } else if (scene->file || same_look(look, &scene->request.look)) {
        memcpy(image, cached, scene->image_bytes);
    } else {
        change_t change = change_of(scene, look);
        if (scene->request.format->bits == 8)
            copy_changed8(scene, &change, cached, image);
        else
            copy_changed(scene, &change, cached, image);
    }
}
