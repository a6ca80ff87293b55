/* Events: NEW_BUFFER of the stream is the only one. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "simcam.h"

static camera_t *camera_of_event(EVENT_HANDLE handle, GC_ERROR *error) {
    module_t *event = module_of_kind(handle, MODULE_EVENT, error);
    return event ? event->camera : NULL;
}

GC_API GCRegisterEvent(EVENTSRC_HANDLE source, int32_t id, EVENT_HANDLE *handle) {
    GC_ERROR error;
    module_t *module = module_of(source, &error);
    if (!module) return error;
    if (!handle) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    if (module->kind != MODULE_STREAM || id != EVENT_NEW_BUFFER)
        return fail(GC_ERR_NOT_IMPLEMENTED, "this module has no event %d", id);
    camera_t *camera = module->camera;
    pthread_mutex_lock(&camera->lock);
    bool taken = camera->event.open;
    if (!taken) {
        camera->kills = 0;
        camera->event.open = true;
        *handle = &camera->event;
    }
    pthread_mutex_unlock(&camera->lock);
    return taken ? fail(GC_ERR_RESOURCE_IN_USE, "the event is registered already") : GC_ERR_SUCCESS;
}

void event_close(camera_t *camera) {
    camera->event.open = false;
    pthread_cond_broadcast(&camera->delivered);
}

GC_API GCUnregisterEvent(EVENTSRC_HANDLE source, int32_t id) {
    GC_ERROR error;
    module_t *module = module_of(source, &error);
    if (!module) return error;
    if (module->kind != MODULE_STREAM || id != EVENT_NEW_BUFFER || !module->camera->event.open)
        return fail(GC_ERR_INVALID_PARAMETER, "event %d is not registered", id);
    pthread_mutex_lock(&module->camera->lock);
    event_close(module->camera);
    pthread_mutex_unlock(&module->camera->lock);
    return GC_ERR_SUCCESS;
}

static struct timespec deadline(uint64_t milliseconds) {
    /* A year is for ever, and the sum below cannot overflow. */
    uint64_t limit = 365ull * 86400 * 1000;
    uint64_t until = now_ns() + (milliseconds < limit ? milliseconds : limit) * 1000000u;
    return (struct timespec){.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
}

/* Waits under camera.lock until a buffer is ready. */
static GC_ERROR wait_for_buffer(camera_t *camera, uint64_t timeout) {
    struct timespec until = deadline(timeout);
    while (camera->event.open && !camera->kills && !camera->output.count) {
        if (!timeout || pthread_cond_timedwait(&camera->delivered, &camera->lock, &until) == ETIMEDOUT) {
            if (camera->event.open && !camera->kills && !camera->output.count)
                return fail(GC_ERR_TIMEOUT, "no new buffer within %llu ms", (unsigned long long)timeout);
        }
    }
    if (camera->event.open && !camera->kills) return GC_ERR_SUCCESS;
    if (camera->kills) camera->kills--; /* one EventKill ends one wait */
    return fail(GC_ERR_ABORT, "the wait was ended");
}

GC_API EventGetData(EVENT_HANDLE handle, void *bytes, size_t *size, uint64_t timeout) {
    GC_ERROR error;
    camera_t *camera = camera_of_event(handle, &error);
    if (!camera) return error;
    if (!bytes || !size) return fail(GC_ERR_INVALID_PARAMETER, "the buffer or the size pointer is NULL");
    if (*size < sizeof(EVENT_NEW_BUFFER_DATA))
        return fail(GC_ERR_BUFFER_TOO_SMALL, "the data of this event have %zu bytes", sizeof(EVENT_NEW_BUFFER_DATA));
    pthread_mutex_lock(&camera->lock);
    error = wait_for_buffer(camera, timeout);
    if (!error) {
        buffer_t *buffer = queue_pop(&camera->output, camera);
        buffer->state = BUFFER_OUT;
        camera->delivered_count++;
        EVENT_NEW_BUFFER_DATA data = {buffer, buffer->user};
        memcpy(bytes, &data, sizeof data);
        *size = sizeof data;
    }
    pthread_mutex_unlock(&camera->lock);
    return error;
}

GC_API EventGetDataInfo(EVENT_HANDLE handle, const void *data, size_t data_size, int32_t command, INFO_DATATYPE *type,
                        void *bytes, size_t *size) {
    GC_ERROR error;
    if (!camera_of_event(handle, &error)) return error;
    EVENT_NEW_BUFFER_DATA event;
    if (!data || data_size < sizeof event) return fail(GC_ERR_INVALID_PARAMETER, "these are no data of this event");
    memcpy(&event, data, sizeof event);
    answer_t to = {type, bytes, size};
    switch (command) {
    case EVENT_DATA_ID: return answer_pointer(to, event.BufferHandle);
    case EVENT_DATA_VALUE: return answer_pointer(to, event.pUserPointer);
    case EVENT_DATA_NUMID: return answer_uint64(to, (uint64_t)(uintptr_t)event.BufferHandle);
    }
    return fail(GC_ERR_NOT_AVAILABLE, "there is no event data info %d", command);
}

GC_API EventGetInfo(EVENT_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *bytes, size_t *size) {
    GC_ERROR error;
    camera_t *camera = camera_of_event(handle, &error);
    if (!camera) return error;
    answer_t to = {type, bytes, size};
    pthread_mutex_lock(&camera->lock);
    switch (command) {
    case EVENT_EVENT_TYPE: error = answer_int32(to, EVENT_NEW_BUFFER); break;
    case EVENT_NUM_IN_QUEUE: error = answer_size(to, camera->output.count); break;
    case EVENT_NUM_FIRED: error = answer_uint64(to, camera->fired); break;
    case EVENT_SIZE_MAX: error = answer_size(to, sizeof(EVENT_NEW_BUFFER_DATA)); break;
    case EVENT_INFO_DATA_SIZE_MAX: error = answer_size(to, sizeof(void *)); break;
    default: error = fail(GC_ERR_NOT_IMPLEMENTED, "there is no event info %d", command);
    }
    pthread_mutex_unlock(&camera->lock);
    return error;
}

GC_API EventFlush(EVENT_HANDLE handle) {
    GC_ERROR error;
    camera_t *camera = camera_of_event(handle, &error);
    if (!camera) return error;
    pthread_mutex_lock(&camera->lock);
    for (buffer_t *buffer; (buffer = queue_pop(&camera->output, camera));) buffer->state = BUFFER_IDLE;
    pthread_mutex_unlock(&camera->lock);
    return GC_ERR_SUCCESS;
}

GC_API EventKill(EVENT_HANDLE handle) {
    GC_ERROR error;
    camera_t *camera = camera_of_event(handle, &error);
    if (!camera) return error;
    pthread_mutex_lock(&camera->lock);
    camera->kills++;
    pthread_cond_broadcast(&camera->delivered);
    pthread_mutex_unlock(&camera->lock);
    return GC_ERR_SUCCESS;
}
