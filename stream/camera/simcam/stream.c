/* The data stream: announced buffers, the two queues, start and stop. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "simcam.h"

/* ---- queues; camera.lock is held ------------------------------------------------------------------------------ */

void queue_push(queue_t *queue, const camera_t *camera, const buffer_t *buffer) {
    /* Never full: a buffer is in one queue at most, once. */
    queue->items[(queue->head + queue->count++) % BUFFER_MAX] = (uint16_t)(buffer - camera->buffers);
}

buffer_t *queue_pop(queue_t *queue, camera_t *camera) {
    if (!queue->count) return NULL;
    buffer_t *buffer = &camera->buffers[queue->items[queue->head]];
    queue->head = (queue->head + 1) % BUFFER_MAX;
    queue->count--;
    return buffer;
}

static void move_all(camera_t *camera, queue_t *from, buffer_state state) {
    for (buffer_t *buffer; (buffer = queue_pop(from, camera));) buffer->state = state;
}

/* ---- buffers -------------------------------------------------------------------------------------------------- */

static camera_t *camera_of_stream(DS_HANDLE handle, GC_ERROR *error) {
    module_t *stream = module_of_kind(handle, MODULE_STREAM, error);
    return stream ? stream->camera : NULL;
}

buffer_t *buffer_of(camera_t *camera, BUFFER_HANDLE handle, GC_ERROR *error) {
    uintptr_t offset = (uintptr_t)handle - (uintptr_t)camera->buffers;
    if ((uintptr_t)handle >= (uintptr_t)camera->buffers && offset < BUFFER_MAX * sizeof(buffer_t) &&
        offset % sizeof(buffer_t) == 0) {
        buffer_t *buffer = &camera->buffers[offset / sizeof(buffer_t)];
        if (buffer->state != BUFFER_REVOKED) return buffer;
    }
    *error = fail(GC_ERR_INVALID_HANDLE, "%p is not an announced buffer of this stream", handle);
    return NULL;
}

static GC_ERROR announce(camera_t *camera, void *base, size_t size, void *user, bool owned, BUFFER_HANDLE *handle) {
    pthread_mutex_lock(&camera->lock);
    uint32_t place = 0;
    while (place < camera->buffers_end && camera->buffers[place].state != BUFFER_REVOKED) place++;
    buffer_t *buffer = place < BUFFER_MAX ? &camera->buffers[place] : NULL;
    if (buffer) {
        *buffer = (buffer_t){.state = BUFFER_IDLE, .base = base, .size = size, .user = user, .owned = owned};
        if (place == camera->buffers_end) camera->buffers_end++;
        camera->announced++;
        *handle = buffer;
    }
    pthread_mutex_unlock(&camera->lock);
    return buffer ? GC_ERR_SUCCESS : fail(GC_ERR_RESOURCE_EXHAUSTED, "at most %d buffers", BUFFER_MAX);
}

GC_API DSAnnounceBuffer(DS_HANDLE handle, void *base, size_t size, void *user, BUFFER_HANDLE *buffer) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    if (!base || !size || !buffer) return fail(GC_ERR_INVALID_PARAMETER, "an empty buffer, or a NULL pointer");
    return announce(camera, base, size, user, false, buffer);
}

GC_API DSAllocAndAnnounceBuffer(DS_HANDLE handle, size_t size, void *user, BUFFER_HANDLE *buffer) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    if (!size || !buffer) return fail(GC_ERR_INVALID_PARAMETER, "an empty buffer, or a NULL pointer");
    void *base = NULL;
    if (posix_memalign(&base, 4096, size) != 0) return fail(GC_ERR_OUT_OF_MEMORY, "no memory for a buffer");
    error = announce(camera, base, size, user, true, buffer);
    if (error) free(base);
    return error;
}

/* Gives a place of the table back. */
static void revoke(camera_t *camera, buffer_t *buffer) {
    if (buffer->owned) free(buffer->base);
    *buffer = (buffer_t){.state = BUFFER_REVOKED};
    camera->announced--;
    while (camera->buffers_end && camera->buffers[camera->buffers_end - 1].state == BUFFER_REVOKED)
        camera->buffers_end--;
}

/* A buffer that is in no queue, with camera.lock held; NULL and no lock where there is none. `in_queue` is the error
 * for one that is. */
static buffer_t *lock_unqueued(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, GC_ERROR in_queue, camera_t **camera,
                               GC_ERROR *error) {
    *camera = camera_of_stream(handle, error);
    if (!*camera) return NULL;
    pthread_mutex_lock(&(*camera)->lock);
    buffer_t *buffer = buffer_of(*camera, buffer_handle, error);
    if (buffer && (buffer->state == BUFFER_IDLE || buffer->state == BUFFER_OUT)) return buffer;
    if (buffer) *error = fail(in_queue, "the buffer is in a queue");
    pthread_mutex_unlock(&(*camera)->lock);
    return NULL;
}

GC_API DSRevokeBuffer(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, void **base, void **user) {
    GC_ERROR error;
    camera_t *camera;
    buffer_t *buffer = lock_unqueued(handle, buffer_handle, GC_ERR_BUSY, &camera, &error);
    if (!buffer) return error;
    if (base) *base = buffer->owned ? NULL : buffer->base;
    if (user) *user = buffer->user;
    revoke(camera, buffer);
    pthread_mutex_unlock(&camera->lock);
    return GC_ERR_SUCCESS;
}

static void queue_for_filling(camera_t *camera, buffer_t *buffer) {
    buffer->state = BUFFER_QUEUED;
    buffer->new_data = false;
    queue_push(&camera->input, camera, buffer);
}

GC_API DSQueueBuffer(DS_HANDLE handle, BUFFER_HANDLE buffer_handle) {
    GC_ERROR error;
    camera_t *camera;
    buffer_t *buffer = lock_unqueued(handle, buffer_handle, GC_ERR_RESOURCE_IN_USE, &camera, &error);
    if (!buffer) return error;
    queue_for_filling(camera, buffer);
    pthread_mutex_unlock(&camera->lock);
    return GC_ERR_SUCCESS;
}

GC_API DSGetBufferID(DS_HANDLE handle, uint32_t index, BUFFER_HANDLE *buffer) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    if (!buffer) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    pthread_mutex_lock(&camera->lock);
    *buffer = NULL;
    for (uint32_t i = 0; i < camera->buffers_end && !*buffer; i++)
        if (camera->buffers[i].state != BUFFER_REVOKED && index-- == 0) *buffer = &camera->buffers[i];
    pthread_mutex_unlock(&camera->lock);
    return *buffer ? GC_ERR_SUCCESS : fail(GC_ERR_INVALID_INDEX, "there are fewer announced buffers");
}

/* ---- flushing ------------------------------------------------------------------------------------------------- */

static void queue_unqueued(camera_t *camera, bool with_those_out) {
    for (uint32_t i = 0; i < camera->buffers_end; i++) {
        buffer_t *buffer = &camera->buffers[i];
        if (buffer->state == BUFFER_IDLE || (with_those_out && buffer->state == BUFFER_OUT))
            queue_for_filling(camera, buffer);
    }
}

static void input_to_output(camera_t *camera) {
    for (buffer_t *buffer; (buffer = queue_pop(&camera->input, camera));) {
        buffer->state = BUFFER_READY;
        queue_push(&camera->output, camera, buffer);
    }
    pthread_cond_broadcast(&camera->delivered);
}

GC_API DSFlushQueue(DS_HANDLE handle, int32_t operation) {
    GC_ERROR error = GC_ERR_SUCCESS;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    pthread_mutex_lock(&camera->lock);
    switch (operation) {
    case ACQ_QUEUE_INPUT_TO_OUTPUT: input_to_output(camera); break;
    case ACQ_QUEUE_OUTPUT_DISCARD: move_all(camera, &camera->output, BUFFER_IDLE); break;
    case ACQ_QUEUE_ALL_TO_INPUT:
        move_all(camera, &camera->output, BUFFER_IDLE);
        queue_unqueued(camera, true);
        break;
    case ACQ_QUEUE_UNQUEUED_TO_INPUT: queue_unqueued(camera, false); break;
    case ACQ_QUEUE_ALL_DISCARD:
        move_all(camera, &camera->input, BUFFER_IDLE);
        move_all(camera, &camera->output, BUFFER_IDLE);
        break;
    default: error = fail(GC_ERR_INVALID_PARAMETER, "there is no queue operation %d", operation);
    }
    pthread_mutex_unlock(&camera->lock);
    return error;
}

/* ---- start, stop, close --------------------------------------------------------------------------------------- */

GC_API DSStartAcquisition(DS_HANDLE handle, int32_t flags, uint64_t frames) {
    (void)flags;
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    return camera ? grabbing_start(camera, frames) : error;
}

GC_API DSStopAcquisition(DS_HANDLE handle, int32_t flags) {
    (void)flags;
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    if (!camera->grabbing) return fail(GC_ERR_RESOURCE_IN_USE, "the stream has not been started");
    grabbing_stop(camera);
    return GC_ERR_SUCCESS;
}

void stream_close(camera_t *camera) {
    if (!camera->stream.open) return;
    grabbing_stop(camera);
    pthread_mutex_lock(&camera->lock);
    event_close(camera);
    camera->input = camera->output = (queue_t){.count = 0};
    while (camera->buffers_end) revoke(camera, &camera->buffers[camera->buffers_end - 1]);
    camera->stream.open = false;
    pthread_mutex_unlock(&camera->lock);
}

GC_API DSClose(DS_HANDLE handle) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    stream_close(camera);
    return GC_ERR_SUCCESS;
}

GC_API DSGetParentDev(DS_HANDLE handle, DEV_HANDLE *parent) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    if (!parent) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    *parent = &camera->device;
    return GC_ERR_SUCCESS;
}

/* ---- statistics ----------------------------------------------------------------------------------------------- */

static GC_ERROR stream_info(const camera_t *camera, int32_t command, answer_t to) {
    switch (command) {
    case STREAM_INFO_ID: return answer_string(to, SIMCAM_STREAM_ID);
    case STREAM_INFO_NUM_DELIVERED: return answer_uint64(to, camera->delivered_count);
    case STREAM_INFO_NUM_UNDERRUN: return answer_uint64(to, camera->underruns);
    case STREAM_INFO_NUM_ANNOUNCED: return answer_size(to, camera->announced);
    case STREAM_INFO_NUM_QUEUED: return answer_size(to, camera->input.count);
    case STREAM_INFO_NUM_AWAIT_DELIVERY: return answer_size(to, camera->output.count);
    case STREAM_INFO_NUM_STARTED: return answer_uint64(to, camera->started);
    case STREAM_INFO_PAYLOAD_SIZE: return answer_size(to, payload_bytes(&camera->settings));
    case STREAM_INFO_IS_GRABBING: return answer_bool(to, camera->grabbing);
    case STREAM_INFO_DEFINES_PAYLOADSIZE: return answer_bool(to, true);
    case STREAM_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    case STREAM_INFO_NUM_CHUNKS_MAX: return answer_size(to, CHUNK_COUNT);
    case STREAM_INFO_BUF_ANNOUNCE_MIN: return answer_size(to, 2);
    case STREAM_INFO_BUF_ALIGNMENT: return answer_size(to, 1);
    }
    return fail(GC_ERR_NOT_IMPLEMENTED, "there is no stream info %d", command);
}

GC_API DSGetInfo(DS_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    GC_ERROR error;
    camera_t *camera = camera_of_stream(handle, &error);
    if (!camera) return error;
    pthread_mutex_lock(&camera->lock);
    error = stream_info(camera, command, (answer_t){type, buffer, size});
    pthread_mutex_unlock(&camera->lock);
    return error;
}
