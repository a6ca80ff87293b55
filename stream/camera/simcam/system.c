/* Library, transport layer and interface; and what every other part needs: handles, errors, answers. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "simcam.h"

static buffer_t buffers[CAMERA_COUNT][BUFFER_MAX]; /* apart from the cameras: zeroes take no room in the file */

#define CAMERA(number, serial_number)                                                                                  \
    {                                                                                                                  \
        .serial = serial_number, .id = "SimCam-" serial_number, .lock_fd = -1, .control = PTHREAD_MUTEX_INITIALIZER,   \
        .lock = PTHREAD_MUTEX_INITIALIZER, .device = {MODULE_DEVICE, false, &cameras[number]},                         \
        .remote = {MODULE_REMOTE, false, &cameras[number]}, .stream = {MODULE_STREAM, false, &cameras[number]},        \
        .event = {MODULE_EVENT, false, &cameras[number]}, .buffers = buffers[number],                                  \
    }

camera_t cameras[CAMERA_COUNT] = {CAMERA(0, "SIM0001"), CAMERA(1, "SIM0002")};

static module_t transport_layer = {MODULE_SYSTEM, false, NULL};
static module_t interface = {MODULE_INTERFACE, false, NULL};
static atomic_bool initialised;
static pthread_mutex_t system_lock = PTHREAD_MUTEX_INITIALIZER; /* opening and closing of the two above */
static pthread_once_t conditions_made = PTHREAD_ONCE_INIT;

static _Thread_local GC_ERROR last_error;
static _Thread_local char last_text[256] = "no error";

/* ---- errors --------------------------------------------------------------------------------------------------- */

GC_ERROR fail(GC_ERROR code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_text, sizeof last_text, format, arguments);
    va_end(arguments);
    last_error = code;
    return code;
}

GC_API GCGetLastError(GC_ERROR *code, char *text, size_t *size) {
    if (!size) return GC_ERR_INVALID_PARAMETER;
    if (code) *code = last_error;
    size_t needed = strlen(last_text) + 1, room = *size;
    *size = needed;
    if (!text) return GC_ERR_SUCCESS;
    if (room < needed) return GC_ERR_BUFFER_TOO_SMALL;
    memcpy(text, last_text, needed);
    return GC_ERR_SUCCESS;
}

/* ---- handles -------------------------------------------------------------------------------------------------- */

module_t *module_of(void *handle, GC_ERROR *error) {
    if (!initialised) {
        *error = fail(GC_ERR_NOT_INITIALIZED, "GCInitLib has not been called");
        return NULL;
    }
    module_t *found = NULL;
    if (handle == &transport_layer) found = &transport_layer;
    if (handle == &interface) found = &interface;
    for (int i = 0; i < CAMERA_COUNT && !found; i++) {
        module_t *own[] = {&cameras[i].stream, &cameras[i].event, &cameras[i].remote, &cameras[i].device};
        for (int j = 0; j < 4; j++)
            if (handle == own[j]) found = own[j];
    }
    if (found && found->open) return found;
    *error = fail(GC_ERR_INVALID_HANDLE, "%p is not the handle of an open module", handle);
    return NULL;
}

module_t *module_of_kind(void *handle, module_kind kind, GC_ERROR *error) {
    module_t *module = module_of(handle, error);
    if (module && module->kind == kind) return module;
    if (module) *error = fail(GC_ERR_INVALID_HANDLE, "%p is the handle of another kind of module", handle);
    return NULL;
}

IF_HANDLE interface_handle(void) { return &interface; }

/* ---- answers -------------------------------------------------------------------------------------------------- */

static GC_ERROR answer(answer_t to, INFO_DATATYPE type, const void *value, size_t bytes) {
    if (!to.size) return fail(GC_ERR_INVALID_PARAMETER, "the size pointer is NULL");
    if (to.type) *to.type = type;
    size_t room = *to.size;
    *to.size = bytes;
    if (!to.buffer) return GC_ERR_SUCCESS;
    if (room < bytes) return fail(GC_ERR_BUFFER_TOO_SMALL, "the answer needs %zu bytes, there are %zu", bytes, room);
    memcpy(to.buffer, value, bytes);
    return GC_ERR_SUCCESS;
}

GC_ERROR answer_string(answer_t to, const char *text) {
    return answer(to, INFO_DATATYPE_STRING, text, strlen(text) + 1);
}
GC_ERROR answer_int32(answer_t to, int32_t value) { return answer(to, INFO_DATATYPE_INT32, &value, sizeof value); }
GC_ERROR answer_uint32(answer_t to, uint32_t value) { return answer(to, INFO_DATATYPE_UINT32, &value, sizeof value); }
GC_ERROR answer_uint64(answer_t to, uint64_t value) { return answer(to, INFO_DATATYPE_UINT64, &value, sizeof value); }
GC_ERROR answer_size(answer_t to, size_t value) { return answer(to, INFO_DATATYPE_SIZET, &value, sizeof value); }
GC_ERROR answer_pointer(answer_t to, void *value) { return answer(to, INFO_DATATYPE_PTR, &value, sizeof value); }
GC_ERROR answer_bool(answer_t to, bool value) {
    bool8_t byte = value;
    return answer(to, INFO_DATATYPE_BOOL8, &byte, sizeof byte);
}

uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- library -------------------------------------------------------------------------------------------------- */

/* Waits must follow CLOCK_MONOTONIC, which a static initialiser cannot say. */
static void make_conditions(void) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (int i = 0; i < CAMERA_COUNT; i++) {
        pthread_cond_init(&cameras[i].wake, &monotonic);
        pthread_cond_init(&cameras[i].delivered, &monotonic);
    }
    pthread_condattr_destroy(&monotonic);
}

GC_API GCInitLib(void) {
    pthread_once(&conditions_made, make_conditions);
    if (atomic_exchange(&initialised, true)) return fail(GC_ERR_RESOURCE_IN_USE, "the producer is initialised already");
    return GC_ERR_SUCCESS;
}

static void close_interface(void) {
    for (int i = 0; i < CAMERA_COUNT; i++) camera_close(&cameras[i]);
    interface.open = false;
}

GC_API GCCloseLib(void) {
    if (!initialised) return fail(GC_ERR_NOT_INITIALIZED, "GCInitLib has not been called");
    pthread_mutex_lock(&system_lock);
    close_interface();
    transport_layer.open = false;
    initialised = false;
    pthread_mutex_unlock(&system_lock);
    return GC_ERR_SUCCESS;
}

static const char *library_path(void) {
    Dl_info info;
    return dladdr(&cameras, &info) && info.dli_fname ? info.dli_fname : "ispeed_simcam.cti";
}

static GC_ERROR system_info(int32_t command, answer_t to) {
    const char *path = library_path(), *slash = strrchr(path, '/');
    switch (command) {
    case TL_INFO_ID: return answer_string(to, SIMCAM_TL_ID);
    case TL_INFO_VENDOR: return answer_string(to, SIMCAM_VENDOR);
    case TL_INFO_MODEL: return answer_string(to, "Simulated camera producer");
    case TL_INFO_VERSION: return answer_string(to, SIMCAM_VERSION);
    case TL_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    case TL_INFO_NAME: return answer_string(to, slash ? slash + 1 : path);
    case TL_INFO_PATHNAME: return answer_string(to, path);
    case TL_INFO_DISPLAYNAME: return answer_string(to, "ispeed simulated cameras");
    case TL_INFO_CHAR_ENCODING: return answer_int32(to, TL_CHAR_ENCODING_UTF8);
    case TL_INFO_GENTL_VER_MAJOR: return answer_uint32(to, 1);
    case TL_INFO_GENTL_VER_MINOR: return answer_uint32(to, 5);
    }
    return fail(GC_ERR_NOT_IMPLEMENTED, "there is no transport layer info %d", command);
}

GC_API GCGetInfo(int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    return system_info(command, (answer_t){type, buffer, size});
}

/* ---- transport layer ------------------------------------------------------------------------------------------ */

GC_API TLOpen(TL_HANDLE *handle) {
    if (!initialised) return fail(GC_ERR_NOT_INITIALIZED, "GCInitLib has not been called");
    if (!handle) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    if (atomic_exchange(&transport_layer.open, true)) return fail(GC_ERR_RESOURCE_IN_USE, "it is open already");
    *handle = &transport_layer;
    return GC_ERR_SUCCESS;
}

GC_API TLClose(TL_HANDLE handle) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    pthread_mutex_lock(&system_lock);
    close_interface();
    transport_layer.open = false;
    pthread_mutex_unlock(&system_lock);
    return GC_ERR_SUCCESS;
}

GC_API TLGetInfo(TL_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    return system_info(command, (answer_t){type, buffer, size});
}

GC_API TLGetNumInterfaces(TL_HANDLE handle, uint32_t *count) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    if (!count) return fail(GC_ERR_INVALID_PARAMETER, "the count pointer is NULL");
    *count = 1;
    return GC_ERR_SUCCESS;
}

GC_API TLGetInterfaceID(TL_HANDLE handle, uint32_t index, char *id, size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    if (index > 0) return fail(GC_ERR_INVALID_INDEX, "there is one interface");
    return answer_string((answer_t){NULL, id, size}, SIMCAM_INTERFACE_ID);
}

static GC_ERROR check_interface_id(const char *id) {
    if (!id) return fail(GC_ERR_INVALID_PARAMETER, "the interface id is NULL");
    if (strcmp(id, SIMCAM_INTERFACE_ID) != 0) return fail(GC_ERR_INVALID_ID, "there is no interface %.64s", id);
    return GC_ERR_SUCCESS;
}

static GC_ERROR interface_info(int32_t command, answer_t to) {
    switch (command) {
    case INTERFACE_INFO_ID: return answer_string(to, SIMCAM_INTERFACE_ID);
    case INTERFACE_INFO_DISPLAYNAME: return answer_string(to, "ispeed simulated interface");
    case INTERFACE_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    }
    return fail(GC_ERR_NOT_IMPLEMENTED, "there is no interface info %d", command);
}

GC_API TLGetInterfaceInfo(TL_HANDLE handle, const char *id, int32_t command, INFO_DATATYPE *type, void *buffer,
                          size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    if ((error = check_interface_id(id))) return error;
    return interface_info(command, (answer_t){type, buffer, size});
}

GC_API TLOpenInterface(TL_HANDLE handle, const char *id, IF_HANDLE *opened) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    if (!opened) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    if ((error = check_interface_id(id))) return error;
    if (atomic_exchange(&interface.open, true)) return fail(GC_ERR_RESOURCE_IN_USE, "the interface is open already");
    *opened = &interface;
    return GC_ERR_SUCCESS;
}

GC_API TLUpdateInterfaceList(TL_HANDLE handle, bool8_t *changed, uint64_t timeout) {
    (void)timeout;
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_SYSTEM, &error)) return error;
    if (changed) *changed = 0;
    return GC_ERR_SUCCESS;
}

/* ---- interface ------------------------------------------------------------------------------------------------ */

GC_API IFClose(IF_HANDLE handle) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    pthread_mutex_lock(&system_lock);
    close_interface();
    pthread_mutex_unlock(&system_lock);
    return GC_ERR_SUCCESS;
}

GC_API IFGetInfo(IF_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    return interface_info(command, (answer_t){type, buffer, size});
}

GC_API IFGetParentTL(IF_HANDLE handle, TL_HANDLE *parent) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    if (!parent) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    *parent = &transport_layer;
    return GC_ERR_SUCCESS;
}

GC_API IFUpdateDeviceList(IF_HANDLE handle, bool8_t *changed, uint64_t timeout) {
    (void)timeout;
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    bool8_t any = 0;
    for (int i = 0; i < CAMERA_COUNT; i++) {
        bool present = camera_present(&cameras[i]);
        any |= present != cameras[i].listed;
        cameras[i].listed = present;
    }
    if (changed) *changed = any;
    return GC_ERR_SUCCESS;
}

GC_API IFGetNumDevices(IF_HANDLE handle, uint32_t *count) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    if (!count) return fail(GC_ERR_INVALID_PARAMETER, "the count pointer is NULL");
    *count = 0;
    for (int i = 0; i < CAMERA_COUNT; i++) *count += cameras[i].listed;
    return GC_ERR_SUCCESS;
}

GC_API IFGetDeviceID(IF_HANDLE handle, uint32_t index, char *id, size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    for (int i = 0; i < CAMERA_COUNT; i++)
        if (cameras[i].listed && index-- == 0) return answer_string((answer_t){NULL, id, size}, cameras[i].id);
    return fail(GC_ERR_INVALID_INDEX, "there are fewer devices in the list");
}

static camera_t *camera_of_id(const char *id, GC_ERROR *error) {
    *error = fail(GC_ERR_INVALID_PARAMETER, "the device id is NULL");
    if (!id) return NULL;
    for (int i = 0; i < CAMERA_COUNT; i++)
        if (cameras[i].listed && strcmp(id, cameras[i].id) == 0) return &cameras[i];
    *error = fail(GC_ERR_INVALID_ID, "there is no device %.64s in the list", id);
    return NULL;
}

GC_API IFGetDeviceInfo(IF_HANDLE handle, const char *id, int32_t command, INFO_DATATYPE *type, void *buffer,
                       size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    camera_t *camera = camera_of_id(id, &error);
    return camera ? device_info(camera, command, (answer_t){type, buffer, size}) : error;
}

GC_API IFOpenDevice(IF_HANDLE handle, const char *id, int32_t flags, DEV_HANDLE *opened) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_INTERFACE, &error)) return error;
    if (!opened) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    if (flags <= DEVICE_ACCESS_NONE || flags > DEVICE_ACCESS_EXCLUSIVE)
        return fail(GC_ERR_INVALID_PARAMETER, "access flags %d cannot open a device", flags);
    camera_t *camera = camera_of_id(id, &error);
    if (!camera || (error = camera_open(camera))) return error;
    *opened = &camera->device;
    return GC_ERR_SUCCESS;
}
