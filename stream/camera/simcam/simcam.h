/* What the parts of the simulated camera share.
 *
 * One transport layer with one interface and two devices, each with one data stream; all of them are static
 * objects, so a handle is valid exactly when it is the address of one of them and that module is open.
 *
 * Locks, always taken in this order:
 *   camera.control   serialises open, close, start and stop (they join the frame clock's thread)
 *   camera.lock      everything the frame clock and the consumer share; never held while pixels move
 */
#ifndef SIMCAM_H
#define SIMCAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "gentl.h"
#include "scene.h"

#define SIMCAM_VENDOR "ispeed"
#define SIMCAM_MODEL "SimCam"
#define SIMCAM_VERSION "1.0.0"
#define SIMCAM_TLTYPE "Custom"
#define SIMCAM_TL_ID "ispeed.simcam"
#define SIMCAM_INTERFACE_ID "SimInterface"
#define SIMCAM_STREAM_ID "Stream0"

enum { CAMERA_COUNT = 2, BUFFER_MAX = 16384, SCENE_PATH_MAX = 1024 };

typedef struct camera camera_t;

/* ---- modules: what a handle points at ------------------------------------------------------------------------- */

typedef enum {
    MODULE_SYSTEM,
    MODULE_INTERFACE,
    MODULE_DEVICE, /* the device on this side of the link */
    MODULE_REMOTE, /* the port of the camera itself */
    MODULE_STREAM,
    MODULE_EVENT, /* NEW_BUFFER of a stream */
} module_kind;

typedef struct {
    module_kind kind;
    atomic_bool open;
    camera_t *camera; /* NULL for the system and the interface */
} module_t;

/* ---- chunks: per-frame values that travel behind the image ---------------------------------------------------- */

/* Chunk ids, the same as <ChunkID> in camera.xml. Every chunk is 8 bytes, little-endian. */
enum { CHUNK_EXPOSURE_TIME, CHUNK_GAIN, CHUNK_FRAME_ID, CHUNK_LINE_STATUS, CHUNK_COUNT };
enum { CHUNK_BYTES = 8, CHUNK_ID_BASE = 0x1001 };

/* ---- features ------------------------------------------------------------------------------------------------- */

enum { ACQUISITION_CONTINUOUS, ACQUISITION_SINGLE_FRAME, ACQUISITION_MULTI_FRAME };
enum { TRIGGER_SOURCE_SOFTWARE, TRIGGER_SOURCE_LINE0 };
enum { SCENE_TARGET, SCENE_FILE };
enum { EXPOSURE_MIN = 1, EXPOSURE_MAX = 1000000, GAIN_MAX = 24, BLACK12_MAX = 1023 };

/* Every feature that a consumer can write, in the units of camera.xml. */
typedef struct {
    int64_t width, height, offset_x, offset_y, pixel_format;
    int64_t acquisition_mode, acquisition_frame_count, frame_rate_enable;
    double frame_rate; /* Hz */
    int64_t trigger_mode, trigger_source, start_trigger_mode, start_trigger_source;
    double exposure; /* us */
    double gain;     /* dB */
    int64_t exposure_auto, gain_auto;
    double black12; /* black level in 12-bit codes, whatever the pixel format */
    double balance[3];
    int64_t chunk_mode, chunk_enable[CHUNK_COUNT];
    int64_t tl_params_locked;
    int64_t line_status; /* one bit for each line */
    int64_t scene, seed, noise;
    int64_t skip_every, incomplete_every, vanish_at, frame_id_bits, frame_id_start, frame_id_modulo;
    int64_t incomplete_without_id, image_offset, row_padding, keeps_acquiring;
} settings_t;

/* ---- buffers -------------------------------------------------------------------------------------------------- */

typedef enum {
    BUFFER_REVOKED, /* a free place in the table */
    BUFFER_IDLE,    /* announced, in no queue */
    BUFFER_QUEUED,  /* waits for a frame */
    BUFFER_FILLING, /* the frame clock writes it */
    BUFFER_READY,   /* waits for EventGetData */
    BUFFER_OUT,     /* the consumer has it */
} buffer_state;

typedef struct {
    buffer_state state;
    void *base;
    size_t size;
    void *user;
    bool owned; /* allocated by us */
    /* the frame in it */
    bool new_data, incomplete, truncated;
    uint64_t frame_id, timestamp;
    size_t filled, data_size, image_offset, row_padding;
    uint32_t width, height, offset_x, offset_y, pfnc;
    size_t chunk_offset[CHUNK_COUNT]; /* 0: this chunk is not in the frame */
} buffer_t;

typedef struct {
    uint16_t items[BUFFER_MAX];
    uint32_t head, count;
} queue_t;

/* ---- a camera ------------------------------------------------------------------------------------------------- */

struct camera {
    const char *serial, *id;
    module_t device, remote, stream, event;

    pthread_mutex_t control;
    int lock_fd; /* the lock of this serial number, -1 while closed */

    pthread_mutex_t lock;
    pthread_cond_t wake;      /* something that the frame clock waits for has changed */
    pthread_cond_t delivered; /* a buffer is ready, or a wait must end */

    bool listed;             /* in the device list since the last IFUpdateDeviceList */
    bool gone;               /* vanished while open: stays so until it is closed */
    uint64_t vanished_until; /* CLOCK_MONOTONIC ns; 0: it is there */

    settings_t settings;
    char scene_path[SCENE_PATH_MAX];
    scene_file_t file;
    scene_t scene;
    uint64_t timestamp_latch;

    /* acquisition */
    bool acquiring;  /* between AcquisitionStart and AcquisitionStop (the camera) */
    bool grabbing;   /* between DSStartAcquisition and DSStopAcquisition (the host) */
    bool running;    /* the frame clock ticks */
    bool begun;      /* its trigger AcquisitionStart has come */
    bool has_thread; /* thread is to be joined */
    pthread_t thread;
    uint8_t *scratch; /* one payload, for frames that do not fit their buffer */
    uint64_t next_number, first_number, frames_taken, frames_to_acquire;
    uint64_t triggers, skip_left, incomplete_left, late_frames, stall_until;
    int64_t vanish_for; /* ms, at frame vanish_at */

    /* buffers; a BUFFER_HANDLE is the address of a place in this table of BUFFER_MAX */
    buffer_t *buffers;
    uint32_t buffers_end, announced; /* places ever used; places in use */
    queue_t input, output;
    uint32_t kills;
    uint64_t fired, delivered_count, underruns, started;
};

extern camera_t cameras[CAMERA_COUNT];

/* ---- system.c: handles, errors, answers ----------------------------------------------------------------------- */

/* Remembers the text for GCGetLastError of this thread and returns `code`. */
GC_ERROR fail(GC_ERROR code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The open module behind a handle; on failure NULL with *error set. */
module_t *module_of(void *handle, GC_ERROR *error);
module_t *module_of_kind(void *handle, module_kind kind, GC_ERROR *error);

/* Where an info function puts its answer: GenTL's (type, buffer, size) triple. */
typedef struct {
    INFO_DATATYPE *type;
    void *buffer;
    size_t *size;
} answer_t;

GC_ERROR answer_string(answer_t to, const char *text);
GC_ERROR answer_int32(answer_t to, int32_t value);
GC_ERROR answer_uint32(answer_t to, uint32_t value);
GC_ERROR answer_uint64(answer_t to, uint64_t value);
GC_ERROR answer_size(answer_t to, size_t value);
GC_ERROR answer_pointer(answer_t to, void *value);
GC_ERROR answer_bool(answer_t to, bool value);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
IF_HANDLE interface_handle(void);

/* ---- device.c ------------------------------------------------------------------------------------------------- */

bool camera_present(camera_t *camera);
GC_ERROR camera_open(camera_t *camera);
void camera_close(camera_t *camera);
void camera_vanish(camera_t *camera, int64_t milliseconds); /* lock held */
GC_ERROR device_info(camera_t *camera, int32_t command, answer_t to);

/* ---- features.c: the registers of the camera ------------------------------------------------------------------ */

void features_reset(camera_t *camera);
size_t image_bytes(const settings_t *settings);
size_t padded_bytes(const settings_t *settings); /* with what lies before the image and behind its rows */
size_t payload_bytes(const settings_t *settings);
GC_ERROR register_read(camera_t *camera, uint64_t address, void *bytes, size_t size);
GC_ERROR register_write(camera_t *camera, uint64_t address, const void *bytes, size_t size);

/* ---- modules.c: the descriptions of the modules --------------------------------------------------------------- */

typedef struct {
    const char *file_name;
    const char *text;
    size_t size;
} description_t;

enum { DESCRIPTION_ADDRESS = 0x100000 };
description_t module_description(const module_t *module);
const char *module_port_name(const module_t *module);
const char *module_type_name(const module_t *module);
GC_ERROR module_register_read(const module_t *module, uint64_t address, void *bytes, size_t size);

/* ---- engine.c: the frame clock -------------------------------------------------------------------------------- */

GC_ERROR acquisition_start(camera_t *camera); /* takes the locks itself */
void acquisition_stop(camera_t *camera);
GC_ERROR grabbing_start(camera_t *camera, uint64_t frames);
void grabbing_stop(camera_t *camera);

/* ---- stream.c ------------------------------------------------------------------------------------------------- */

void queue_push(queue_t *queue, const camera_t *camera, const buffer_t *buffer);
buffer_t *queue_pop(queue_t *queue, camera_t *camera); /* NULL: empty */
/* The announced buffer behind a handle, lock held; on failure NULL with *error set. */
buffer_t *buffer_of(camera_t *camera, BUFFER_HANDLE handle, GC_ERROR *error);
void stream_close(camera_t *camera);

/* ---- events.c ------------------------------------------------------------------------------------------------- */

void event_close(camera_t *camera); /* lock held: drops the registration and ends every wait */

#endif
