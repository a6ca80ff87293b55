/* The frame clock: one thread per camera that takes a picture at each tick or trigger.
 *
 * It keeps to a fixed grid of ticks. When it wakes more than a whole period late, the grid starts anew from that
 * moment: the missed ticks give no frames and no frame ids (the camera took its next picture later), never a burst.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "simcam.h"

/* Sleeping takes this long to wake up from, so shorter waits are spent awake (ns). */
enum { SPIN_NS = 60000 };

/* One exposure: everything that the picture and its description need, taken down when it starts. */
typedef struct {
    uint64_t number, id, timestamp, lines;
    double exposure, gain;
    look_t look;
    bool incomplete;
} frame_t;

/* ---- taking a picture ----------------------------------------------------------------------------------------- */

static double clamp(double value, double low, double high) { return value < low ? low : value > high ? high : value; }

/* The automatic functions go a tenth of the way towards mid grey with each frame, exposure first. */
static void step_automatic(camera_t *camera, uint64_t period) {
    static const double mid_grey = 0.18;
    settings_t *settings = &camera->settings;
    if (camera->scene.file || camera->scene.mean <= 0 || (!settings->exposure_auto && !settings->gain_auto)) return;
    look_t look = {.exposure = settings->exposure, .gain = settings->gain};
    double step = pow(mid_grey / scene_mean(&camera->scene, &look), 0.1);
    if (settings->exposure_auto) {
        double longest = period ? clamp((double)period / 1000, EXPOSURE_MIN, EXPOSURE_MAX) : EXPOSURE_MAX;
        double wanted = settings->exposure * step;
        settings->exposure = clamp(wanted, EXPOSURE_MIN, longest);
        step = wanted / settings->exposure;
    }
    if (settings->gain_auto) settings->gain = clamp(settings->gain + 20 * log10(step), 0, GAIN_MAX);
}

/* GigE's 16-bit block ids leave out 0. */
static uint64_t frame_id_of(const settings_t *settings, uint64_t number) {
    if (settings->frame_id_modulo) return number % (uint64_t)settings->frame_id_modulo;
    return settings->frame_id_bits == 16 ? (number - 1) % UINT16_MAX + 1 : number;
}

static frame_t expose(camera_t *camera) {
    const settings_t *settings = &camera->settings;
    frame_t frame = {
        .number = camera->next_number++,
        .timestamp = now_ns(),
        .exposure = settings->exposure,
        .gain = settings->gain,
        .lines = (uint64_t)settings->line_status,
        .look = {settings->exposure, settings->gain, settings->black12,
                 {settings->balance[0], settings->balance[1], settings->balance[2]}},
    };
    frame.id = frame_id_of(settings, frame.number);
    camera->frames_taken++;
    return frame;
}

static bool is_hit(uint64_t *left, int64_t every, uint64_t number) {
    bool hit = *left > 0;
    if (hit) --*left;
    return hit || (every && number % (uint64_t)every == 0);
}

/* ---- into a buffer -------------------------------------------------------------------------------------------- */

static void put_chunks(const camera_t *camera, buffer_t *buffer, const frame_t *frame, uint8_t *payload) {
    size_t offset = (padded_bytes(&camera->settings) + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
    const void *values[CHUNK_COUNT] = {[CHUNK_EXPOSURE_TIME] = &frame->exposure,
                                       [CHUNK_GAIN] = &frame->gain,
                                       [CHUNK_FRAME_ID] = &frame->id,
                                       [CHUNK_LINE_STATUS] = &frame->lines};
    for (int i = 0; i < CHUNK_COUNT; i++) {
        if (!camera->settings.chunk_enable[i]) continue;
        memcpy(payload + offset, values[i], CHUNK_BYTES);
        buffer->chunk_offset[i] = offset;
        offset += CHUNK_BYTES;
    }
}

/* Moves the rows of an image to where SimImageOffset and SimRowPadding want them; the last one first. */
static void misplace(const settings_t *settings, uint8_t *image) {
    size_t row = image_bytes(settings) / (size_t)settings->height, pitch = row + (size_t)settings->row_padding;
    for (size_t y = (size_t)settings->height; y-- > 0;)
        memmove(image + (size_t)settings->image_offset + y * pitch, image + y * row, row);
}

/* Without the lock: the buffer is ours while it is FILLING, and geometry and chunks are fixed while acquiring. */
static void fill(camera_t *camera, buffer_t *buffer, const frame_t *frame) {
    const settings_t *settings = &camera->settings;
    size_t payload = payload_bytes(settings), length = payload;
    if (frame->incomplete) length /= 2;
    buffer->truncated = length > buffer->size;
    if (buffer->truncated) length = buffer->size;
    bool misplaced = settings->image_offset || settings->row_padding;
    uint8_t *to = length < payload ? camera->scratch : buffer->base;
    scene_copy(&camera->scene, frame->number - camera->first_number, &frame->look, to);
    if (!camera->scene.file) stamp_number(&camera->scene, frame->number, &frame->look, to);
    if (misplaced) misplace(settings, to);
    memset(buffer->chunk_offset, 0, sizeof buffer->chunk_offset);
    if (settings->chunk_mode && length == payload) put_chunks(camera, buffer, frame, to);
    if (length < payload) memcpy(buffer->base, to, length);

    buffer->incomplete = length < payload;
    buffer->new_data = true;
    buffer->frame_id = frame->incomplete && settings->incomplete_without_id ? 0 : frame->id; /* its leader was lost */
    buffer->timestamp = frame->timestamp;
    buffer->filled = length;
    buffer->data_size = payload;
    buffer->width = (uint32_t)settings->width;
    buffer->height = (uint32_t)settings->height;
    buffer->offset_x = (uint32_t)settings->offset_x;
    buffer->offset_y = (uint32_t)settings->offset_y;
    buffer->image_offset = (size_t)settings->image_offset;
    buffer->row_padding = (size_t)settings->row_padding;
    buffer->pfnc = (uint32_t)settings->pixel_format;
}

/* One exposure and its way to the consumer, or its loss. Called with the lock; gives it up while pixels move. */
static void take_frame(camera_t *camera, uint64_t period) {
    frame_t frame = expose(camera);
    if (camera->settings.vanish_at && frame.number == (uint64_t)camera->settings.vanish_at) {
        camera_vanish(camera, camera->vanish_for);
        return;
    }
    step_automatic(camera, period);
    if (is_hit(&camera->skip_left, camera->settings.skip_every, frame.number)) return;
    buffer_t *buffer = queue_pop(&camera->input, camera);
    if (!buffer) {
        camera->underruns++;
        return;
    }
    frame.incomplete = is_hit(&camera->incomplete_left, camera->settings.incomplete_every, frame.number);
    buffer->state = BUFFER_FILLING;
    camera->started++;
    pthread_mutex_unlock(&camera->lock);
    fill(camera, buffer, &frame);
    pthread_mutex_lock(&camera->lock);
    buffer->state = BUFFER_READY;
    queue_push(&camera->output, camera, buffer);
    camera->fired++;
    if (camera->frames_to_acquire != GENTL_INFINITE) camera->frames_to_acquire--;
    pthread_cond_signal(&camera->delivered);
}

/* ---- the clock ------------------------------------------------------------------------------------------------ */

static uint64_t period_ns(const settings_t *settings) {
    /* Without a set rate the camera runs as fast as its exposure allows. */
    double rate = settings->frame_rate_enable ? settings->frame_rate : 1e6 / settings->exposure;
    return (uint64_t)(1e9 / rate);
}

/* Waits, with the lock, until the moment or until something changes; returns true at the moment. */
static bool wait_until(camera_t *camera, uint64_t moment) {
    uint64_t now = now_ns();
    if (now >= moment) return true;
    if (moment - now > SPIN_NS) {
        struct timespec until = {.tv_sec = (time_t)(moment / 1000000000u), .tv_nsec = (long)(moment % 1000000000u)};
        pthread_cond_timedwait(&camera->wake, &camera->lock, &until);
        return false; /* the caller looks at everything again */
    }
    pthread_mutex_unlock(&camera->lock);
    while (now_ns() < moment) __builtin_ia32_pause();
    pthread_mutex_lock(&camera->lock);
    return false;
}

static bool is_finished(const camera_t *camera) {
    const settings_t *settings = &camera->settings;
    if (settings->acquisition_mode == ACQUISITION_SINGLE_FRAME) return camera->frames_taken >= 1;
    if (settings->acquisition_mode == ACQUISITION_MULTI_FRAME)
        return camera->frames_taken >= (uint64_t)settings->acquisition_frame_count;
    return false;
}

/* What the clock waits for now, with the lock. Returns true when a picture is due; *tick is the last point of the
 * grid, 0 where the grid is to start anew. */
static bool is_due(camera_t *camera, uint64_t *tick) {
    uint64_t now = now_ns(), period = period_ns(&camera->settings);
    if (camera->gone) {
        pthread_cond_wait(&camera->wake, &camera->lock);
        return false;
    }
    if (now < camera->stall_until) {
        *tick = 0;
        wait_until(camera, camera->stall_until);
        return false;
    }
    if (camera->settings.start_trigger_mode && !camera->begun) {
        *tick = 0;
        pthread_cond_wait(&camera->wake, &camera->lock);
        return false;
    }
    if (camera->settings.trigger_mode) {
        *tick = 0;
        if (!camera->triggers) pthread_cond_wait(&camera->wake, &camera->lock);
        if (!camera->triggers || camera->gone || now_ns() < camera->stall_until) return false;
        camera->triggers--;
        return true;
    }
    if (!*tick) *tick = now - period;
    if (!wait_until(camera, *tick + period)) return false;
    *tick += period;
    uint64_t late = now_ns() - *tick;
    if (late >= period) {
        camera->late_frames += late / period;
        *tick += late;
    }
    return true;
}

/* A real camera's clock competes with nobody for a core. Ours asks the scheduler for the shortest slices that it gives
 * (Linux 6.12 and later, no privilege needed; ignored elsewhere): it is then woken sooner beside busy neighbours. */
static void ask_for_short_slices(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period; /* ns */
    } attributes = {.size = sizeof attributes, .nice = getpriority(PRIO_PROCESS, 0), .runtime = 100000};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *run_clock(void *argument) {
    camera_t *camera = argument;
    ask_for_short_slices();
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_NAME, camera->id);
    pthread_mutex_lock(&camera->lock);
    uint64_t tick = 0;
    while (camera->running) {
        if (!is_due(camera, &tick) || !camera->running) continue;
        take_frame(camera, camera->settings.trigger_mode ? 0 : period_ns(&camera->settings));
        if (is_finished(camera)) camera->running = camera->acquiring = false;
        if (!camera->frames_to_acquire) camera->running = false;
    }
    pthread_mutex_unlock(&camera->lock);
    return NULL;
}

/* ---- start and stop; camera.control is held ------------------------------------------------------------------- */

static void stop_clock(camera_t *camera) {
    pthread_mutex_lock(&camera->lock);
    camera->running = camera->begun = false;
    camera->triggers = 0;
    pthread_cond_broadcast(&camera->wake);
    pthread_mutex_unlock(&camera->lock);
    if (camera->has_thread) pthread_join(camera->thread, NULL);
    camera->has_thread = false;
    free(camera->scratch);
    camera->scratch = NULL;
}

static void set_flag(camera_t *camera, bool *flag, bool value) {
    pthread_mutex_lock(&camera->lock);
    *flag = value;
    pthread_mutex_unlock(&camera->lock);
}

/* Runs once both sides want frames: the camera acquires and the host grabs. */
static GC_ERROR start_clock(camera_t *camera) {
    if (!camera->acquiring || !camera->grabbing) return GC_ERR_SUCCESS;
    stop_clock(camera); /* one that came to its end by itself is still to be joined */
    camera->scratch = calloc(1, payload_bytes(&camera->settings));
    if (!camera->scratch) return fail(GC_ERR_OUT_OF_MEMORY, "no memory for a frame");
    set_flag(camera, &camera->running, true);
    if (pthread_create(&camera->thread, NULL, run_clock, camera) != 0) {
        set_flag(camera, &camera->running, false);
        return fail(GC_ERR_RESOURCE_EXHAUSTED, "the thread of the frame clock cannot start");
    }
    camera->has_thread = true;
    return GC_ERR_SUCCESS;
}

/* What to render for the present settings; checks that the scene fits the pixel format. */
static GC_ERROR make_request(const camera_t *camera, scene_request_t *request) {
    const settings_t *settings = &camera->settings;
    bool file = settings->scene == SCENE_FILE;
    const pixel_format_t *format = pixel_format_of(settings->pixel_format);
    if (file && !camera->file.map)
        return fail(GC_ERR_INVALID_VALUE, "SimScene is File, but SimSceneFile names no file");
    if (file && camera->file.cfa != format->cfa)
        return fail(GC_ERR_INVALID_VALUE, "the scene file is %s, but the pixel format is %s",
                    cfa_name(camera->file.cfa), format->name);
    *request = (scene_request_t){
        .format = format,
        .width = (uint32_t)settings->width,
        .height = (uint32_t)settings->height,
        .offset_x = (uint32_t)settings->offset_x,
        .offset_y = (uint32_t)settings->offset_y,
        .file_generation = file ? camera->file.generation : 0,
        .seed = (uint32_t)settings->seed,
        .noise = settings->noise,
        .look = {settings->exposure, settings->gain, settings->black12,
                 {settings->balance[0], settings->balance[1], settings->balance[2]}},
    };
    return GC_ERR_SUCCESS;
}

GC_ERROR acquisition_start(camera_t *camera) {
    scene_request_t request;
    pthread_mutex_lock(&camera->control);
    pthread_mutex_lock(&camera->lock);
    GC_ERROR error = GC_ERR_SUCCESS;
    if (camera->acquiring) error = fail(GC_ERR_RESOURCE_IN_USE, "the camera acquires already");
    if (!error) error = make_request(camera, &request);
    if (!error) {
        camera->acquiring = true; /* from here on the geometry is fixed */
        camera->first_number = camera->next_number = (uint64_t)camera->settings.frame_id_start;
        camera->frames_taken = camera->late_frames = 0;
    }
    pthread_mutex_unlock(&camera->lock);
    if (!error) {
        /* The clock of an acquisition that ended by itself has read the scene until now. */
        stop_clock(camera);
        error = scene_prepare(&camera->scene, &request, request.file_generation ? &camera->file : NULL);
        if (!error) error = start_clock(camera);
        if (error) set_flag(camera, &camera->acquiring, false);
    }
    pthread_mutex_unlock(&camera->control);
    return error;
}

void acquisition_stop(camera_t *camera) {
    pthread_mutex_lock(&camera->control);
    stop_clock(camera);
    set_flag(camera, &camera->acquiring, false);
    pthread_mutex_unlock(&camera->control);
}

GC_ERROR grabbing_start(camera_t *camera, uint64_t frames) {
    pthread_mutex_lock(&camera->control);
    GC_ERROR error = GC_ERR_SUCCESS;
    if (camera->grabbing) error = fail(GC_ERR_RESOURCE_IN_USE, "the stream has been started already");
    if (!error) {
        pthread_mutex_lock(&camera->lock);
        camera->grabbing = true;
        camera->frames_to_acquire = frames;
        camera->delivered_count = 0;
        pthread_mutex_unlock(&camera->lock);
        error = start_clock(camera);
        if (error) set_flag(camera, &camera->grabbing, false);
    }
    pthread_mutex_unlock(&camera->control);
    return error;
}

void grabbing_stop(camera_t *camera) {
    pthread_mutex_lock(&camera->control);
    stop_clock(camera);
    set_flag(camera, &camera->grabbing, false);
    pthread_mutex_unlock(&camera->control);
}
