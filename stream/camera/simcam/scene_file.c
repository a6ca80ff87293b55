/* Scene files: raw frames that the camera plays back as they are. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simcam.h"

/* A page of header, then the samples of all frames: 16 bits each, little-endian, row by row. */
enum { HEADER_BYTES = 4096, HEADER_VERSION = 1 };
typedef struct {
    char magic[8];
    uint32_t version, width, height, frames, depth, cfa, black, white;
} header_t;

static GC_ERROR check_header(const header_t *header, size_t file_bytes, const char *path) {
    if (memcmp(header->magic, "ISPSCENE", 8) != 0 || header->version != HEADER_VERSION)
        return fail(GC_ERR_INVALID_VALUE, "%.128s is not a scene file of version %d", path, HEADER_VERSION);
    if (header->width < WIDTH_MIN || header->width > SENSOR_MAX || header->height < HEIGHT_MIN ||
        header->height > SENSOR_MAX)
        return fail(GC_ERR_INVALID_VALUE, "a scene of %u x %u pixels does not fit the camera", header->width,
                    header->height);
    if (!header->frames || header->depth < 8 || header->depth > 16 || header->cfa > CFA_MONO)
        return fail(GC_ERR_INVALID_VALUE, "%.128s has no frames, or an unknown depth or filter array", path);
    size_t needed = (size_t)header->width * header->height * sizeof(uint16_t) * header->frames + HEADER_BYTES;
    if (needed > file_bytes)
        return fail(GC_ERR_INVALID_VALUE, "%.128s has %zu bytes, its header asks for %zu", path, file_bytes, needed);
    return GC_ERR_SUCCESS;
}

GC_ERROR scene_file_open(scene_file_t *file, const char *path) {
    static uint64_t generation;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(GC_ERR_IO, "the scene file %.128s cannot be opened: %s", path, strerror(errno));
    struct stat status;
    size_t bytes = fstat(fd, &status) == 0 && status.st_size > HEADER_BYTES ? (size_t)status.st_size : 0;
    void *map = bytes ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED) return fail(GC_ERR_IO, "the scene file %.128s is too short or cannot be mapped", path);
    header_t header;
    memcpy(&header, map, sizeof header);
    GC_ERROR error = check_header(&header, bytes, path);
    if (error) {
        munmap(map, bytes);
        return error;
    }
    scene_file_close(file);
    *file = (scene_file_t){
        .map = map,
        .map_bytes = bytes,
        .samples = (const uint16_t *)((const char *)map + HEADER_BYTES),
        .width = header.width,
        .height = header.height,
        .frames = header.frames,
        .depth = header.depth,
        .black = header.black,
        .white = header.white,
        .cfa = (cfa_t)header.cfa,
        .generation = __atomic_add_fetch(&generation, 1, __ATOMIC_RELAXED),
    };
    return GC_ERR_SUCCESS;
}

void scene_file_close(scene_file_t *file) {
    if (file->map) munmap(file->map, file->map_bytes);
    file->map = NULL;
}

void scene_file_row(const scene_file_t *file, const pixel_format_t *format, uint32_t frame, uint32_t x, uint32_t y,
                    size_t count, uint16_t *samples) {
    const uint16_t *row = file->samples + ((size_t)frame * file->height + y) * file->width + x;
    int up = (int)format->depth - (int)file->depth;
    if (up == 0) {
        memcpy(samples, row, count * sizeof *samples);
    } else if (up > 0) {
        for (size_t i = 0; i < count; i++) samples[i] = (uint16_t)(row[i] << up);
    } else {
        for (size_t i = 0; i < count; i++) samples[i] = (uint16_t)(row[i] >> -up);
    }
    /* Codes beyond the depth that the header promises would spill into neighbours when packed. */
    uint16_t full = (uint16_t)((1u << format->depth) - 1);
    for (size_t i = 0; i < count; i++) samples[i] = samples[i] < full ? samples[i] : full;
}
