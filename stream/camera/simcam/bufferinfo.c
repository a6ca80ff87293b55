/* What is in a buffer: its description, its chunks; and the kinds of payload that this camera does not have. */
#include "simcam.h"

/* Returns with camera.lock held when it finds the buffer; info is then read under it. */
static buffer_t *lock_buffer(DS_HANDLE stream_handle, BUFFER_HANDLE handle, camera_t **camera, GC_ERROR *error) {
    module_t *stream = module_of_kind(stream_handle, MODULE_STREAM, error);
    if (!stream) return NULL;
    *camera = stream->camera;
    pthread_mutex_lock(&stream->camera->lock);
    buffer_t *buffer = buffer_of(stream->camera, handle, error);
    if (!buffer) pthread_mutex_unlock(&stream->camera->lock);
    return buffer;
}

static bool has_chunks(const buffer_t *buffer) {
    for (int i = 0; i < CHUNK_COUNT; i++)
        if (buffer->chunk_offset[i]) return true;
    return false;
}

static GC_ERROR buffer_info(const buffer_t *buffer, int32_t command, answer_t to) {
    switch (command) {
    case BUFFER_INFO_BASE: return answer_pointer(to, buffer->base);
    case BUFFER_INFO_SIZE: return answer_size(to, buffer->size);
    case BUFFER_INFO_USER_PTR: return answer_pointer(to, buffer->user);
    case BUFFER_INFO_TIMESTAMP: return answer_uint64(to, buffer->timestamp);
    case BUFFER_INFO_NEW_DATA: return answer_bool(to, buffer->new_data);
    case BUFFER_INFO_IS_QUEUED: return answer_bool(to, buffer->state == BUFFER_QUEUED);
    case BUFFER_INFO_IS_ACQUIRING: return answer_bool(to, buffer->state == BUFFER_FILLING);
    case BUFFER_INFO_IS_INCOMPLETE: return answer_bool(to, buffer->incomplete);
    case BUFFER_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    case BUFFER_INFO_SIZE_FILLED: return answer_size(to, buffer->filled);
    case BUFFER_INFO_WIDTH: return answer_size(to, buffer->width);
    case BUFFER_INFO_HEIGHT: return answer_size(to, buffer->height);
    case BUFFER_INFO_XOFFSET: return answer_size(to, buffer->offset_x);
    case BUFFER_INFO_YOFFSET: return answer_size(to, buffer->offset_y);
    case BUFFER_INFO_XPADDING: return answer_size(to, buffer->row_padding);
    case BUFFER_INFO_YPADDING: return answer_size(to, 0);
    case BUFFER_INFO_FRAMEID: return answer_uint64(to, buffer->frame_id);
    case BUFFER_INFO_IMAGEPRESENT: return answer_bool(to, true);
    case BUFFER_INFO_IMAGEOFFSET: return answer_size(to, buffer->image_offset);
    case BUFFER_INFO_PAYLOADTYPE: return answer_size(to, PAYLOAD_TYPE_IMAGE);
    case BUFFER_INFO_PIXELFORMAT: return answer_uint64(to, buffer->pfnc);
    case BUFFER_INFO_PIXELFORMAT_NAMESPACE: return answer_uint64(to, PIXELFORMAT_NAMESPACE_PFNC_32BIT);
    case BUFFER_INFO_DELIVERED_IMAGEHEIGHT: return answer_size(to, buffer->height);
    case BUFFER_INFO_DELIVERED_CHUNKPAYLOADSIZE: return answer_size(to, has_chunks(buffer) ? buffer->filled : 0);
    case BUFFER_INFO_CHUNKLAYOUTID: return answer_uint64(to, 0);
    case BUFFER_INFO_PIXEL_ENDIANNESS: return answer_int32(to, PIXELENDIANNESS_LITTLE);
    case BUFFER_INFO_DATA_SIZE: return answer_size(to, buffer->data_size);
    case BUFFER_INFO_TIMESTAMP_NS: return answer_uint64(to, buffer->timestamp);
    case BUFFER_INFO_DATA_LARGER_THAN_BUFFER: return answer_bool(to, buffer->truncated);
    case BUFFER_INFO_CONTAINS_CHUNKDATA: return answer_bool(to, has_chunks(buffer));
    case BUFFER_INFO_IS_COMPOSITE: return answer_bool(to, false);
    }
    return fail(GC_ERR_NOT_AVAILABLE, "there is no buffer info %d", command);
}

GC_API DSGetBufferInfo(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, int32_t command, INFO_DATATYPE *type, void *bytes,
                       size_t *size) {
    GC_ERROR error;
    camera_t *camera;
    buffer_t *buffer = lock_buffer(handle, buffer_handle, &camera, &error);
    if (!buffer) return error;
    error = buffer_info(buffer, command, (answer_t){type, bytes, size});
    pthread_mutex_unlock(&camera->lock);
    return error;
}

/* GenTL 1.6, but worth having: one call for all that a consumer wants to know of a frame. */
GC_API DSGetBufferInfoStacked(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, DS_BUFFER_INFO_STACKED *entries,
                              size_t count) {
    if (!entries) return fail(GC_ERR_INVALID_PARAMETER, "the entries pointer is NULL");
    GC_ERROR error = GC_ERR_SUCCESS;
    camera_t *camera;
    buffer_t *buffer = lock_buffer(handle, buffer_handle, &camera, &error);
    if (!buffer) return error;
    for (size_t i = 0; i < count; i++) {
        INFO_DATATYPE type = 0; /* the entries are packed, so their members may not be pointed at */
        size_t size = entries[i].iSize;
        entries[i].iResult = buffer_info(buffer, entries[i].iInfoCmd, (answer_t){&type, entries[i].pBuffer, &size});
        entries[i].iType = type;
        entries[i].iSize = size;
        if (entries[i].iResult) error = entries[i].iResult;
    }
    pthread_mutex_unlock(&camera->lock);
    return error;
}

static GC_ERROR chunk_data(const buffer_t *buffer, SINGLE_CHUNK_DATA *chunks, size_t *count) {
    size_t room = *count, found = 0;
    for (int i = 0; i < CHUNK_COUNT; i++) {
        if (!buffer->chunk_offset[i]) continue;
        uint64_t id = CHUNK_ID_BASE + (uint64_t)i;
        if (chunks && found < room)
            chunks[found] = (SINGLE_CHUNK_DATA){id, (ptrdiff_t)buffer->chunk_offset[i], CHUNK_BYTES};
        found++;
    }
    *count = found;
    if (!found) return fail(GC_ERR_NO_DATA, "the frame carries no chunks");
    if (chunks && found > room) return fail(GC_ERR_BUFFER_TOO_SMALL, "the frame carries %zu chunks", found);
    return GC_ERR_SUCCESS;
}

GC_API DSGetBufferChunkData(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, SINGLE_CHUNK_DATA *chunks, size_t *count) {
    if (!count) return fail(GC_ERR_INVALID_PARAMETER, "the count pointer is NULL");
    GC_ERROR error;
    camera_t *camera;
    buffer_t *buffer = lock_buffer(handle, buffer_handle, &camera, &error);
    if (!buffer) return error;
    error = chunk_data(buffer, chunks, count);
    pthread_mutex_unlock(&camera->lock);
    return error;
}

/* ---- not in this camera: multi-part payloads, and what GenTL 1.6 added ---------------------------------------- */

GC_API DSGetNumBufferParts(DS_HANDLE handle, BUFFER_HANDLE buffer_handle, uint32_t *count) {
    GC_ERROR error;
    camera_t *camera;
    if (!lock_buffer(handle, buffer_handle, &camera, &error)) return error;
    pthread_mutex_unlock(&camera->lock);
    if (count) *count = 0;
    return fail(GC_ERR_NO_DATA, "the payload has no parts: it is an image");
}

#define NOT_IMPLEMENTED(name, ...)                                                                                     \
    GC_API name(__VA_ARGS__);                                                                                          \
    GC_API name(__VA_ARGS__) { return fail(GC_ERR_NOT_IMPLEMENTED, #name " is not implemented"); }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
NOT_IMPLEMENTED(DSGetBufferPartInfo, DS_HANDLE stream, BUFFER_HANDLE buffer, uint32_t part, int32_t command,
                INFO_DATATYPE *type, void *bytes, size_t *size)
NOT_IMPLEMENTED(DSGetBufferPartInfoStacked, DS_HANDLE stream, BUFFER_HANDLE buffer, void *entries, size_t count)
NOT_IMPLEMENTED(DSAnnounceCompositeBuffer, DS_HANDLE stream, size_t segments, void **bases, size_t *sizes, void *user,
                BUFFER_HANDLE *buffer)
NOT_IMPLEMENTED(DSGetNumFlows, DS_HANDLE stream, uint32_t *count)
NOT_IMPLEMENTED(DSGetFlowInfo, DS_HANDLE stream, uint32_t flow, int32_t command, INFO_DATATYPE *type, void *bytes,
                size_t *size)
NOT_IMPLEMENTED(DSGetNumBufferSegments, DS_HANDLE stream, BUFFER_HANDLE buffer, uint32_t *count)
NOT_IMPLEMENTED(DSGetBufferSegmentInfo, DS_HANDLE stream, BUFFER_HANDLE buffer, uint32_t segment, int32_t command,
                INFO_DATATYPE *type, void *bytes, size_t *size)
#pragma GCC diagnostic pop
