/* The registers of the camera: what camera.xml names, at the same addresses. Numbers are 8 bytes, little-endian. */
#include <math.h>
#include <string.h>

#include "simcam.h"

enum {
    REG_WIDTH = 0x1000,
    REG_HEIGHT = 0x1008,
    REG_OFFSET_X = 0x1010,
    REG_OFFSET_Y = 0x1018,
    REG_WIDTH_MAX = 0x1020,
    REG_HEIGHT_MAX = 0x1028,
    REG_WIDTH_LIMIT = 0x1030,
    REG_HEIGHT_LIMIT = 0x1038,
    REG_OFFSET_X_LIMIT = 0x1040,
    REG_OFFSET_Y_LIMIT = 0x1048,
    REG_PIXEL_FORMAT = 0x1050,
    REG_PAYLOAD_SIZE = 0x1058,
    REG_ACQUISITION_MODE = 0x1100,
    REG_ACQUISITION_FRAME_COUNT = 0x1108,
    REG_ACQUISITION_START = 0x1110,
    REG_ACQUISITION_STOP = 0x1118,
    REG_FRAME_RATE = 0x1120,
    REG_FRAME_RATE_ENABLE = 0x1128,
    REG_TRIGGER_MODE = 0x1130,
    REG_TRIGGER_SOURCE = 0x1138,
    REG_TRIGGER_SOFTWARE = 0x1140,
    REG_EXPOSURE_TIME = 0x1148,
    REG_EXPOSURE_AUTO = 0x1150,
    REG_START_TRIGGER_MODE = 0x1160, /* the three of the trigger AcquisitionStart */
    REG_START_TRIGGER_SOURCE = 0x1168,
    REG_START_TRIGGER_SOFTWARE = 0x1170,
    REG_GAIN = 0x1200,
    REG_GAIN_AUTO = 0x1208,
    REG_BLACK_LEVEL = 0x1210,
    REG_BLACK_LEVEL_MAX = 0x1218,
    REG_BLACK_LEVEL_LOCKED = 0x1220,
    REG_BALANCE_RED = 0x1228,
    REG_BALANCE_GREEN = 0x1230,
    REG_BALANCE_BLUE = 0x1238,
    REG_TIMESTAMP = 0x1300,
    REG_TIMESTAMP_LATCH = 0x1308,
    REG_TIMESTAMP_LATCH_VALUE = 0x1310,
    REG_TEMPERATURE = 0x1318,
    REG_TL_PARAMS_LOCKED = 0x1320,
    REG_LINE_STATUS_ALL = 0x1328,
    REG_CHUNK_MODE = 0x1400,
    REG_CHUNK_ENABLE = 0x1408, /* one for each chunk */
    REG_SCENE = 0x1500,
    REG_SEED = 0x1508,
    REG_NOISE = 0x1510,
    REG_SKIP_COUNT = 0x1518,
    REG_SKIP_EVERY = 0x1520,
    REG_INCOMPLETE_COUNT = 0x1528,
    REG_INCOMPLETE_EVERY = 0x1530,
    REG_STALL_MS = 0x1538,
    REG_VANISH = 0x1540,
    REG_FRAME_ID_BITS = 0x1548,
    REG_FRAME_ID_START = 0x1550,
    REG_LATE_FRAMES = 0x1558,
    REG_VANISH_AT = 0x1560,
    REG_LINE_STATUS = 0x1568,
    REG_FRAME_ID_MODULO = 0x1570,
    REG_INCOMPLETE_WITHOUT_ID = 0x1578,
    REG_IMAGE_OFFSET = 0x1580,
    REG_ROW_PADDING = 0x1588,
    REG_KEEPS_ACQUIRING = 0x1590,
    REG_SCENE_FILE = 0x8400, /* a string of SCENE_PATH_MAX bytes */
};
enum { REG_BYTES = 8, MISPLACED_MAX = 4096 };

/* LIVE may change while the camera acquires, FIXED may not. */
typedef enum { READ = 1, WRITE = 2, FIXED_BIT = 4, LIVE = READ | WRITE, FIXED = LIVE | FIXED_BIT } access_t;

typedef struct {
    uint32_t address;
    bool real; /* a double; else an int64 */
    access_t access;
    size_t field; /* offset in settings_t; NO_FIELD: computed, or a command */
    double min, max;
    uint32_t step; /* 0: any */
} register_t;

#define NO_FIELD SIZE_MAX
#define SETTING(member) offsetof(settings_t, member)

static const register_t registers[] = {
    {REG_WIDTH, false, FIXED, SETTING(width), WIDTH_MIN, SENSOR_MAX, WIDTH_STEP},
    {REG_HEIGHT, false, FIXED, SETTING(height), HEIGHT_MIN, SENSOR_MAX, HEIGHT_STEP},
    {REG_OFFSET_X, false, FIXED, SETTING(offset_x), 0, SENSOR_MAX, 2},
    {REG_OFFSET_Y, false, FIXED, SETTING(offset_y), 0, SENSOR_MAX, 2},
    {REG_WIDTH_MAX, false, READ, NO_FIELD, 0, 0, 0},
    {REG_HEIGHT_MAX, false, READ, NO_FIELD, 0, 0, 0},
    {REG_WIDTH_LIMIT, false, READ, NO_FIELD, 0, 0, 0},
    {REG_HEIGHT_LIMIT, false, READ, NO_FIELD, 0, 0, 0},
    {REG_OFFSET_X_LIMIT, false, READ, NO_FIELD, 0, 0, 0},
    {REG_OFFSET_Y_LIMIT, false, READ, NO_FIELD, 0, 0, 0},
    {REG_PIXEL_FORMAT, false, FIXED, SETTING(pixel_format), 0, UINT32_MAX, 0},
    {REG_PAYLOAD_SIZE, false, READ, NO_FIELD, 0, 0, 0},
    {REG_ACQUISITION_MODE, false, FIXED, SETTING(acquisition_mode), 0, ACQUISITION_MULTI_FRAME, 0},
    {REG_ACQUISITION_FRAME_COUNT, false, FIXED, SETTING(acquisition_frame_count), 1, UINT32_MAX, 0},
    {REG_ACQUISITION_START, false, WRITE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_ACQUISITION_STOP, false, WRITE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_FRAME_RATE, true, LIVE, SETTING(frame_rate), 0.1, 100000, 0},
    {REG_FRAME_RATE_ENABLE, false, LIVE, SETTING(frame_rate_enable), 0, 1, 0},
    {REG_TRIGGER_MODE, false, LIVE, SETTING(trigger_mode), 0, 1, 0},
    {REG_TRIGGER_SOURCE, false, LIVE, SETTING(trigger_source), 0, TRIGGER_SOURCE_LINE0, 0},
    {REG_TRIGGER_SOFTWARE, false, WRITE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_START_TRIGGER_MODE, false, LIVE, SETTING(start_trigger_mode), 0, 1, 0},
    {REG_START_TRIGGER_SOURCE, false, LIVE, SETTING(start_trigger_source), 0, TRIGGER_SOURCE_LINE0, 0},
    {REG_START_TRIGGER_SOFTWARE, false, WRITE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_EXPOSURE_TIME, true, LIVE, SETTING(exposure), EXPOSURE_MIN, EXPOSURE_MAX, 0},
    {REG_EXPOSURE_AUTO, false, LIVE, SETTING(exposure_auto), 0, 1, 0},
    {REG_GAIN, true, LIVE, SETTING(gain), 0, GAIN_MAX, 0},
    {REG_GAIN_AUTO, false, LIVE, SETTING(gain_auto), 0, 1, 0},
    {REG_BLACK_LEVEL, true, LIVE, NO_FIELD, 0, UINT16_MAX, 0},
    {REG_BLACK_LEVEL_MAX, true, READ, NO_FIELD, 0, 0, 0},
    {REG_BLACK_LEVEL_LOCKED, false, READ, NO_FIELD, 0, 0, 0},
    {REG_BALANCE_RED, true, LIVE, SETTING(balance[CHANNEL_RED]), 0.1, 8, 0},
    {REG_BALANCE_GREEN, true, LIVE, SETTING(balance[CHANNEL_GREEN]), 0.1, 8, 0},
    {REG_BALANCE_BLUE, true, LIVE, SETTING(balance[CHANNEL_BLUE]), 0.1, 8, 0},
    {REG_TIMESTAMP, false, READ, NO_FIELD, 0, 0, 0},
    {REG_TIMESTAMP_LATCH, false, WRITE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_TIMESTAMP_LATCH_VALUE, false, READ, NO_FIELD, 0, 0, 0},
    {REG_TEMPERATURE, true, READ, NO_FIELD, 0, 0, 0},
    {REG_TL_PARAMS_LOCKED, false, LIVE, SETTING(tl_params_locked), 0, 1, 0},
    {REG_LINE_STATUS_ALL, false, READ, SETTING(line_status), 0, 0, 0},
    {REG_CHUNK_MODE, false, FIXED, SETTING(chunk_mode), 0, 1, 0},
    {REG_CHUNK_ENABLE, false, FIXED, SETTING(chunk_enable[0]), 0, 1, 0},
    {REG_CHUNK_ENABLE + REG_BYTES, false, FIXED, SETTING(chunk_enable[1]), 0, 1, 0},
    {REG_CHUNK_ENABLE + 2 * REG_BYTES, false, FIXED, SETTING(chunk_enable[2]), 0, 1, 0},
    {REG_CHUNK_ENABLE + 3 * REG_BYTES, false, FIXED, SETTING(chunk_enable[3]), 0, 1, 0},
    {REG_SCENE, false, FIXED, SETTING(scene), 0, SCENE_FILE, 0},
    {REG_SEED, false, FIXED, SETTING(seed), 0, UINT32_MAX, 0},
    {REG_NOISE, false, FIXED, SETTING(noise), 0, 1, 0},
    {REG_SKIP_COUNT, false, LIVE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_SKIP_EVERY, false, LIVE, SETTING(skip_every), 0, UINT32_MAX, 0},
    {REG_INCOMPLETE_COUNT, false, LIVE, NO_FIELD, 0, UINT32_MAX, 0},
    {REG_INCOMPLETE_EVERY, false, LIVE, SETTING(incomplete_every), 0, UINT32_MAX, 0},
    {REG_STALL_MS, false, LIVE, NO_FIELD, 0, 3600000, 0},
    {REG_VANISH, false, LIVE, NO_FIELD, 0, 3600000, 0},
    {REG_VANISH_AT, false, LIVE, SETTING(vanish_at), 0, UINT32_MAX, 0},
    {REG_LINE_STATUS, false, LIVE, SETTING(line_status), 0, UINT16_MAX, 0},
    {REG_FRAME_ID_BITS, false, FIXED, SETTING(frame_id_bits), 16, 64, 48},
    {REG_FRAME_ID_START, false, FIXED, SETTING(frame_id_start), 1, 9007199254740992.0, 0},
    {REG_FRAME_ID_MODULO, false, FIXED, SETTING(frame_id_modulo), 0, UINT32_MAX, 0},
    {REG_INCOMPLETE_WITHOUT_ID, false, LIVE, SETTING(incomplete_without_id), 0, 1, 0},
    {REG_IMAGE_OFFSET, false, FIXED, SETTING(image_offset), 0, MISPLACED_MAX, 0},
    {REG_ROW_PADDING, false, FIXED, SETTING(row_padding), 0, MISPLACED_MAX, 0},
    {REG_KEEPS_ACQUIRING, false, LIVE, SETTING(keeps_acquiring), 0, 1, 0},
    {REG_LATE_FRAMES, false, READ, NO_FIELD, 0, 0, 0},
};

/* Constant texts: DeviceVendorName and its kin. */
static const struct {
    uint32_t address;
    const char *text; /* NULL: the serial number */
} texts[] = {{0x8000, SIMCAM_VENDOR}, {0x8040, SIMCAM_MODEL}, {0x8080, NULL}, {0x80C0, SIMCAM_VERSION}};
enum { TEXT_BYTES = 64 };

void features_reset(camera_t *camera) {
    camera->settings = (settings_t){
        .width = 1280,
        .height = 1024,
        .pixel_format = 0x01080009, /* BayerRG8 */
        .acquisition_frame_count = 1,
        .frame_rate_enable = 1,
        .frame_rate = 100,
        .exposure = 500,
        .black12 = 64,
        .balance = {1, 1, 1},
        .chunk_enable = {1, 1, 1},
        .noise = 1,
        .frame_id_bits = 64,
        .frame_id_start = 1,
    };
    camera->scene_path[0] = 0;
    camera->timestamp_latch = camera->late_frames = camera->stall_until = 0;
    camera->triggers = camera->skip_left = camera->incomplete_left = 0;
}

/* ---- derived values ------------------------------------------------------------------------------------------- */

size_t image_bytes(const settings_t *settings) {
    size_t bits = pixel_format_of(settings->pixel_format)->bits;
    return (size_t)settings->width * (size_t)settings->height * bits / 8;
}

size_t padded_bytes(const settings_t *settings) {
    return image_bytes(settings) + (size_t)settings->image_offset + (size_t)(settings->height * settings->row_padding);
}

/* The chunks start at the next multiple of 8 behind the image. */
size_t payload_bytes(const settings_t *settings) {
    size_t bytes = padded_bytes(settings);
    if (!settings->chunk_mode) return bytes;
    bytes = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
    for (int i = 0; i < CHUNK_COUNT; i++) bytes += settings->chunk_enable[i] ? CHUNK_BYTES : 0;
    return bytes;
}

static bool plays_file(const camera_t *camera) { return camera->settings.scene == SCENE_FILE && camera->file.map; }

static int64_t width_max(const camera_t *camera) {
    return plays_file(camera) ? camera->file.width / WIDTH_STEP * WIDTH_STEP : SENSOR_MAX;
}

static int64_t height_max(const camera_t *camera) {
    return plays_file(camera) ? camera->file.height / HEIGHT_STEP * HEIGHT_STEP : SENSOR_MAX;
}

/* Codes of the current pixel format per 12-bit code. */
static double codes_per_code12(const camera_t *camera) {
    return ldexp(1, pixel_format_of(camera->settings.pixel_format)->depth - 12);
}

static double black_level(const camera_t *camera) {
    if (plays_file(camera))
        return ldexp(camera->file.black,
                     pixel_format_of(camera->settings.pixel_format)->depth - (int)camera->file.depth);
    return camera->settings.black12 * codes_per_code12(camera);
}

static int64_t milliseconds_left(uint64_t until) {
    uint64_t now = now_ns();
    return until > now ? (int64_t)((until - now) / 1000000u) : 0;
}

static double compute_real(const camera_t *camera, uint32_t address) {
    switch (address) {
    case REG_BLACK_LEVEL: return black_level(camera);
    case REG_BLACK_LEVEL_MAX: return BLACK12_MAX * codes_per_code12(camera);
    case REG_TEMPERATURE: return 42 + 2 * sin((double)now_ns() * 1e-11); /* two degrees up and down in ten minutes */
    }
    return 0;
}

static int64_t compute_integer(const camera_t *camera, uint32_t address) {
    const settings_t *settings = &camera->settings;
    switch (address) {
    case REG_WIDTH_MAX: return width_max(camera);
    case REG_HEIGHT_MAX: return height_max(camera);
    case REG_WIDTH_LIMIT: return (width_max(camera) - settings->offset_x) / WIDTH_STEP * WIDTH_STEP;
    case REG_HEIGHT_LIMIT: return (height_max(camera) - settings->offset_y) / HEIGHT_STEP * HEIGHT_STEP;
    case REG_OFFSET_X_LIMIT: return width_max(camera) - settings->width;
    case REG_OFFSET_Y_LIMIT: return height_max(camera) - settings->height;
    case REG_PAYLOAD_SIZE: return (int64_t)payload_bytes(settings);
    case REG_BLACK_LEVEL_LOCKED: return plays_file(camera);
    case REG_TIMESTAMP: return (int64_t)now_ns();
    case REG_TIMESTAMP_LATCH_VALUE: return (int64_t)camera->timestamp_latch;
    case REG_SKIP_COUNT: return (int64_t)camera->skip_left;
    case REG_INCOMPLETE_COUNT: return (int64_t)camera->incomplete_left;
    case REG_STALL_MS: return milliseconds_left(camera->stall_until);
    case REG_LATE_FRAMES: return (int64_t)camera->late_frames;
    }
    return 0;
}

/* ---- the scene that is set ------------------------------------------------------------------------------------ */

static int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }

/* Opens what SimScene and SimSceneFile name now, and fits the region of interest into it. */
static GC_ERROR choose_scene(camera_t *camera) {
    if (camera->settings.scene != SCENE_FILE || !camera->scene_path[0]) return GC_ERR_SUCCESS;
    GC_ERROR error = scene_file_open(&camera->file, camera->scene_path);
    if (error) return error;
    settings_t *settings = &camera->settings;
    settings->width = at_most(settings->width, width_max(camera));
    settings->height = at_most(settings->height, height_max(camera));
    settings->offset_x = at_most(settings->offset_x, (width_max(camera) - settings->width) / 2 * 2);
    settings->offset_y = at_most(settings->offset_y, (height_max(camera) - settings->height) / 2 * 2);
    return GC_ERR_SUCCESS;
}

static GC_ERROR write_scene_path(camera_t *camera, const char *bytes, size_t size) {
    if (camera->acquiring) return fail(GC_ERR_ACCESS_DENIED, "SimSceneFile cannot change while the camera acquires");
    if (!memchr(bytes, 0, size) && size >= SCENE_PATH_MAX)
        return fail(GC_ERR_INVALID_VALUE, "the path of the scene file is longer than %d bytes", SCENE_PATH_MAX - 1);
    char before[SCENE_PATH_MAX];
    memcpy(before, camera->scene_path, sizeof before);
    memset(camera->scene_path, 0, sizeof camera->scene_path);
    memcpy(camera->scene_path, bytes, strnlen(bytes, size));
    GC_ERROR error = choose_scene(camera);
    if (error) memcpy(camera->scene_path, before, sizeof before);
    return error;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static const register_t *register_at(uint64_t address) {
    for (size_t i = 0; i < sizeof registers / sizeof registers[0]; i++)
        if (registers[i].address == address) return &registers[i];
    return NULL;
}

/* Limits that depend on other features. */
static GC_ERROR check_dependent(const camera_t *camera, uint32_t address, double value) {
    double limit = 0;
    switch (address) {
    case REG_WIDTH: limit = (double)compute_integer(camera, REG_WIDTH_LIMIT); break;
    case REG_HEIGHT: limit = (double)compute_integer(camera, REG_HEIGHT_LIMIT); break;
    case REG_OFFSET_X: limit = (double)compute_integer(camera, REG_OFFSET_X_LIMIT); break;
    case REG_OFFSET_Y: limit = (double)compute_integer(camera, REG_OFFSET_Y_LIMIT); break;
    case REG_BLACK_LEVEL: limit = compute_real(camera, REG_BLACK_LEVEL_MAX); break;
    case REG_PIXEL_FORMAT:
        if (pixel_format_of((int64_t)value)) return GC_ERR_SUCCESS;
        return fail(GC_ERR_INVALID_VALUE, "the camera has no pixel format 0x%08x", (unsigned)value);
    default: return GC_ERR_SUCCESS;
    }
    if (value <= limit) return GC_ERR_SUCCESS;
    return fail(GC_ERR_INVALID_VALUE, "%g is more than %g, the largest value possible now", value, limit);
}

static GC_ERROR check_value(const camera_t *camera, const register_t *entry, double value) {
    if (!(entry->access & WRITE)) return fail(GC_ERR_ACCESS_DENIED, "register 0x%x is read-only", entry->address);
    if ((entry->access & FIXED_BIT) && camera->acquiring)
        return fail(GC_ERR_ACCESS_DENIED, "register 0x%x cannot change while the camera acquires", entry->address);
    if (!(value >= entry->min && value <= entry->max))
        return fail(GC_ERR_INVALID_VALUE, "%g is outside %g to %g", value, entry->min, entry->max);
    if (entry->step && fmod(value - entry->min, entry->step) != 0)
        return fail(GC_ERR_INVALID_VALUE, "%g is not %g plus a multiple of %u", value, entry->min, entry->step);
    if (entry->address == REG_BLACK_LEVEL && plays_file(camera))
        return fail(GC_ERR_ACCESS_DENIED, "the black level of a scene file is fixed");
    return check_dependent(camera, entry->address, value);
}

/* What a write does beyond storing the value; the frame clock is woken afterwards and looks at everything again. */
static GC_ERROR apply(camera_t *camera, uint32_t address, double value) {
    switch (address) {
    case REG_BLACK_LEVEL: camera->settings.black12 = value / codes_per_code12(camera); break;
    case REG_TIMESTAMP_LATCH: camera->timestamp_latch = now_ns(); break;
    case REG_SKIP_COUNT: camera->skip_left = (uint64_t)value; break;
    case REG_INCOMPLETE_COUNT: camera->incomplete_left = (uint64_t)value; break;
    case REG_STALL_MS: camera->stall_until = now_ns() + (uint64_t)value * 1000000u; break;
    case REG_VANISH:
        camera->vanish_for = (int64_t)value;
        if (!camera->settings.vanish_at) camera_vanish(camera, camera->vanish_for);
        break;
    case REG_SCENE: return choose_scene(camera);
    case REG_TRIGGER_MODE: camera->triggers = 0; break;
    case REG_TRIGGER_SOFTWARE:
        if (camera->running && camera->settings.trigger_mode &&
            camera->settings.trigger_source == TRIGGER_SOURCE_SOFTWARE)
            camera->triggers++;
        break;
    case REG_START_TRIGGER_SOFTWARE:
        if (camera->running && camera->settings.start_trigger_source == TRIGGER_SOURCE_SOFTWARE) camera->begun = true;
        break;
    }
    return GC_ERR_SUCCESS;
}

static GC_ERROR write_number(camera_t *camera, const register_t *entry, const void *bytes) {
    int64_t integer;
    double real;
    memcpy(&integer, bytes, sizeof integer);
    memcpy(&real, bytes, sizeof real);
    double value = entry->real ? real : (double)integer;
    GC_ERROR error = check_value(camera, entry, value);
    if (error) return error;
    settings_t before = camera->settings;
    if (entry->field != NO_FIELD) memcpy((char *)&camera->settings + entry->field, bytes, REG_BYTES);
    error = apply(camera, entry->address, value);
    if (error) camera->settings = before;
    pthread_cond_broadcast(&camera->wake);
    return error;
}

GC_ERROR register_write(camera_t *camera, uint64_t address, const void *bytes, size_t size) {
    const register_t *entry = register_at(address);
    if (entry && size == REG_BYTES) {
        /* These two render and join a thread, so they take the locks themselves. */
        if (address == REG_ACQUISITION_START) return acquisition_start(camera);
        if (address == REG_ACQUISITION_STOP) {
            acquisition_stop(camera);
            return GC_ERR_SUCCESS;
        }
        pthread_mutex_lock(&camera->lock);
        GC_ERROR error = write_number(camera, entry, bytes);
        pthread_mutex_unlock(&camera->lock);
        return error;
    }
    if (address == REG_SCENE_FILE && size <= SCENE_PATH_MAX) {
        pthread_mutex_lock(&camera->lock);
        GC_ERROR error = write_scene_path(camera, bytes, size);
        pthread_mutex_unlock(&camera->lock);
        return error;
    }
    return fail(GC_ERR_INVALID_ADDRESS, "no register of %zu bytes at 0x%llx", size, (unsigned long long)address);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static GC_ERROR read_number(const camera_t *camera, const register_t *entry, void *bytes) {
    if (!(entry->access & READ)) return fail(GC_ERR_ACCESS_DENIED, "register 0x%x is write-only", entry->address);
    if (entry->field != NO_FIELD) {
        memcpy(bytes, (const char *)&camera->settings + entry->field, REG_BYTES);
    } else if (entry->real) {
        double value = compute_real(camera, entry->address);
        memcpy(bytes, &value, REG_BYTES);
    } else {
        int64_t value = compute_integer(camera, entry->address);
        memcpy(bytes, &value, REG_BYTES);
    }
    return GC_ERR_SUCCESS;
}

GC_ERROR register_read(camera_t *camera, uint64_t address, void *bytes, size_t size) {
    const register_t *entry = register_at(address);
    if (entry && size == REG_BYTES) {
        pthread_mutex_lock(&camera->lock);
        GC_ERROR error = read_number(camera, entry, bytes);
        pthread_mutex_unlock(&camera->lock);
        return error;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (address != texts[i].address || size != TEXT_BYTES) continue;
        memset(bytes, 0, size);
        const char *text = texts[i].text ? texts[i].text : camera->serial;
        memcpy(bytes, text, strlen(text));
        return GC_ERR_SUCCESS;
    }
    if (address == REG_SCENE_FILE && size <= SCENE_PATH_MAX) {
        pthread_mutex_lock(&camera->lock);
        memcpy(bytes, camera->scene_path, size);
        pthread_mutex_unlock(&camera->lock);
        return GC_ERR_SUCCESS;
    }
    return fail(GC_ERR_INVALID_ADDRESS, "no register of %zu bytes at 0x%llx", size, (unsigned long long)address);
}
