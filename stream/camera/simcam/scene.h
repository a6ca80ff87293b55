/* What the camera looks at: pictures rendered or read beforehand, copied out frame by frame. */
#ifndef SCENE_H
#define SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gentl.h"

enum { SENSOR_MAX = 8192, WIDTH_MIN = 16, WIDTH_STEP = 4, HEIGHT_MIN = 2, HEIGHT_STEP = 2 };

/* ---- pixel formats (pack.c) ----------------------------------------------------------------------------------- */

typedef enum { CFA_RG, CFA_GR, CFA_GB, CFA_BG, CFA_MONO } cfa_t;
enum { CHANNEL_RED, CHANNEL_GREEN, CHANNEL_BLUE, CHANNEL_MONO, CHANNEL_COUNT };

typedef struct {
    const char *name; /* PFNC */
    uint32_t pfnc;
    uint8_t depth; /* significant bits of a sample */
    uint8_t bits;  /* bits of a sample in the payload */
    cfa_t cfa;
} pixel_format_t;

const pixel_format_t *pixel_format_of(int64_t pfnc); /* NULL: the camera does not have it */
int channel_at(cfa_t cfa, unsigned x, unsigned y);
const char *cfa_name(cfa_t cfa);

/* Rows of samples to payload bytes and back; `count` is a multiple of 4, so that every row ends on a whole byte. */
void pack_row(const pixel_format_t *format, const uint16_t *samples, size_t count, uint8_t *bytes);
void unpack_row(const pixel_format_t *format, const uint8_t *bytes, size_t count, uint16_t *samples);

/* ---- scene files (scene_file.c): written by ispeed.stream.camera.scenes --------------------------------------- */

typedef struct {
    void *map; /* NULL: no file */
    size_t map_bytes;
    const uint16_t *samples; /* [frames, height, width] */
    uint32_t width, height, frames, depth, black, white;
    cfa_t cfa;
    uint64_t generation; /* tells one opened file from the next */
} scene_file_t;

GC_ERROR scene_file_open(scene_file_t *file, const char *path);
void scene_file_close(scene_file_t *file);
/* One row of a frame, brought to the depth of the format: to more bits by shifting left, to fewer by dropping the
 * lowest ones (rounding down, as a coarser converter would). With equal depths the codes stay as they are. */
void scene_file_row(const scene_file_t *file, const pixel_format_t *format, uint32_t frame, uint32_t x, uint32_t y,
                    size_t count, uint16_t *samples);

/* ---- scenes (scene.c) ----------------------------------------------------------------------------------------- */

/* How bright the picture comes out; may change from frame to frame. */
typedef struct {
    double exposure; /* us */
    double gain;     /* dB */
    double black12;  /* 12-bit codes */
    double balance[3];
} look_t;

/* All that decides the bytes in the cache. */
typedef struct {
    const pixel_format_t *format;
    uint32_t width, height, offset_x, offset_y;
    uint64_t file_generation; /* 0: the target */
    uint32_t seed;
    bool noise;
    look_t look;
} scene_request_t;

typedef struct {
    scene_request_t request;
    scene_file_t *file; /* NULL: the target */
    uint8_t *cache;
    size_t cache_bytes;
    size_t row_bytes, image_bytes;
    uint32_t frames; /* length of the loop */
    uint32_t cached; /* the first so many frames lie in the cache */
    double mean;     /* signal above black as a share of full scale; 0 for a file */
} scene_t;

/* Makes the cache for a request, or keeps it when nothing has changed. */
GC_ERROR scene_prepare(scene_t *scene, const scene_request_t *request, scene_file_t *file);
void scene_release(scene_t *scene);
/* Writes one whole image of the loop; a look other than the cached one is applied on the way. */
void scene_copy(const scene_t *scene, uint64_t index, const look_t *look, uint8_t *image);
/* Signal above black that the mean pixel of the target would have with this look, as a share of full scale. */
double scene_mean(const scene_t *scene, const look_t *look);

/* ---- the target (target.c) and the frame number (stamp.c) ----------------------------------------------------- */

/* Renders `frames` images into the cache of the scene; false: out of memory. */
bool target_render(scene_t *scene);
void stamp_number(const scene_t *scene, uint64_t number, const look_t *look, uint8_t *image);

#endif
