/* Devices: who may open them, whether they are there, and the Dev functions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simcam.h"

/* ---- one user at a time --------------------------------------------------------------------------------------- */

/* A file per serial number and user carries a lock. It is an open-file-description lock: unlike flock(), another
 * process can ask for its state without taking it for a moment, so that listing cameras never makes somebody else's
 * open fail. The kernel drops it with the process, however that ends. The file stays: removing it would let two
 * processes lock two different files of the same name. */
static int open_lock_file(const camera_t *camera) {
    char path[512];
    const char *folders[] = {getenv("XDG_RUNTIME_DIR"), "/tmp"};
    for (int i = 0; i < 2; i++) {
        if (!folders[i] || folders[i][0] != '/') continue;
        int length = snprintf(path, sizeof path, "%s/ispeed-simcam-%u-%s.lock", folders[i], (unsigned)geteuid(),
                              camera->serial);
        if (length >= (int)sizeof path) continue;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct stat status;
        if (fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid() && S_ISREG(status.st_mode)) return fd;
        if (fd >= 0) close(fd);
    }
    return -1;
}

static struct flock whole_file(void) { return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET}; }

static bool locked_by_another_process(const camera_t *camera) {
    int fd = open_lock_file(camera);
    if (fd < 0) return false;
    struct flock lock = whole_file();
    bool locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return locked;
}

/* ---- being there ---------------------------------------------------------------------------------------------- */

/* A camera that vanishes for a while does so for every process of this user: the moment of its return lies in the
 * lock file, in CLOCK_MONOTONIC ns. */
enum { VANISH_MAX_MS = 3600 * 1000 };

static uint64_t return_from_file(const camera_t *camera) {
    uint64_t until = 0;
    int fd = open_lock_file(camera);
    if (fd < 0) return 0;
    if (pread(fd, &until, sizeof until, 0) != sizeof until) until = 0;
    close(fd);
    /* Later than any vanishing can end: the clock has started anew since. */
    return until > now_ns() + VANISH_MAX_MS * 1000000ull ? 0 : until;
}

bool camera_present(camera_t *camera) {
    pthread_mutex_lock(&camera->lock);
    uint64_t until = camera->vanished_until;
    pthread_mutex_unlock(&camera->lock);
    uint64_t now = now_ns();
    return now >= until && now >= return_from_file(camera);
}

void camera_vanish(camera_t *camera, int64_t milliseconds) {
    camera->gone = true;
    /* 0 ms: for this process it never comes back. */
    camera->vanished_until = milliseconds ? now_ns() + (uint64_t)milliseconds * 1000000u : UINT64_MAX;
    if (milliseconds &&
        pwrite(camera->lock_fd, &camera->vanished_until, sizeof camera->vanished_until, 0) < 0) {
        /* Other processes will see the camera earlier: nothing that this one could mend. */
    }
    pthread_cond_broadcast(&camera->wake);
}

/* ---- open and close ------------------------------------------------------------------------------------------- */

static GC_ERROR take_lock(camera_t *camera) {
    int fd = open_lock_file(camera);
    if (fd < 0) return fail(GC_ERR_IO, "the lock file of %s cannot be opened: %s", camera->serial, strerror(errno));
    struct flock lock = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        close(fd);
        return fail(GC_ERR_RESOURCE_IN_USE, "%s is open in another process", camera->serial);
    }
    camera->lock_fd = fd;
    return GC_ERR_SUCCESS;
}

GC_ERROR camera_open(camera_t *camera) {
    if (!camera_present(camera)) return fail(GC_ERR_IO, "%s does not answer", camera->serial);
    pthread_mutex_lock(&camera->control);
    GC_ERROR error = GC_ERR_SUCCESS;
    if (camera->device.open) error = fail(GC_ERR_RESOURCE_IN_USE, "%s is open in this process", camera->serial);
    if (!error) error = take_lock(camera);
    if (!error) {
        pthread_mutex_lock(&camera->lock);
        camera->gone = false;
        camera->vanished_until = 0;
        if (!camera->acquiring) features_reset(camera);
        pthread_mutex_unlock(&camera->lock);
        camera->device.open = true;
        camera->remote.open = true;
    }
    pthread_mutex_unlock(&camera->control);
    return error;
}

void camera_close(camera_t *camera) {
    if (!camera->device.open) return;
    bool acquires_on = camera->acquiring && camera->settings.keeps_acquiring;
    stream_close(camera);
    acquisition_stop(camera);
    pthread_mutex_lock(&camera->control);
    camera->acquiring = acquires_on; /* nobody has told it to stop; there is no stream for what it takes */
    camera->remote.open = false;
    camera->device.open = false;
    if (!acquires_on) {
        scene_release(&camera->scene);
        scene_file_close(&camera->file);
    }
    if (camera->lock_fd >= 0) close(camera->lock_fd);
    camera->lock_fd = -1;
    pthread_mutex_unlock(&camera->control);
}

/* ---- the Dev functions ---------------------------------------------------------------------------------------- */

static int32_t access_status(camera_t *camera) {
    if (!camera_present(camera)) return DEVICE_ACCESS_STATUS_NOACCESS;
    if (camera->device.open) return DEVICE_ACCESS_STATUS_OPEN_READWRITE;
    return locked_by_another_process(camera) ? DEVICE_ACCESS_STATUS_BUSY : DEVICE_ACCESS_STATUS_READWRITE;
}

GC_ERROR device_info(camera_t *camera, int32_t command, answer_t to) {
    char name[64];
    switch (command) {
    case DEVICE_INFO_ID: return answer_string(to, camera->id);
    case DEVICE_INFO_VENDOR: return answer_string(to, SIMCAM_VENDOR);
    case DEVICE_INFO_MODEL: return answer_string(to, SIMCAM_MODEL);
    case DEVICE_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    case DEVICE_INFO_DISPLAYNAME:
        snprintf(name, sizeof name, SIMCAM_VENDOR " " SIMCAM_MODEL " (%s)", camera->serial);
        return answer_string(to, name);
    case DEVICE_INFO_ACCESS_STATUS: return answer_int32(to, access_status(camera));
    case DEVICE_INFO_USER_DEFINED_NAME: return answer_string(to, "");
    case DEVICE_INFO_SERIAL_NUMBER: return answer_string(to, camera->serial);
    case DEVICE_INFO_VERSION: return answer_string(to, SIMCAM_VERSION);
    case DEVICE_INFO_TIMESTAMP_FREQUENCY: return answer_uint64(to, 1000000000u);
    }
    return fail(GC_ERR_NOT_IMPLEMENTED, "there is no device info %d", command);
}

GC_API DevGetInfo(DEV_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    GC_ERROR error;
    module_t *device = module_of_kind(handle, MODULE_DEVICE, &error);
    return device ? device_info(device->camera, command, (answer_t){type, buffer, size}) : error;
}

GC_API DevClose(DEV_HANDLE handle) {
    GC_ERROR error;
    module_t *device = module_of_kind(handle, MODULE_DEVICE, &error);
    if (!device) return error;
    camera_close(device->camera);
    return GC_ERR_SUCCESS;
}

GC_API DevGetPort(DEV_HANDLE handle, PORT_HANDLE *remote) {
    GC_ERROR error;
    module_t *device = module_of_kind(handle, MODULE_DEVICE, &error);
    if (!device) return error;
    if (!remote) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    *remote = &device->camera->remote;
    return GC_ERR_SUCCESS;
}

/* The interface is a singleton: its handle is the one that opened the device. */
GC_API DevGetParentIF(DEV_HANDLE handle, IF_HANDLE *parent) {
    GC_ERROR error;
    module_t *device = module_of_kind(handle, MODULE_DEVICE, &error);
    if (!device) return error;
    if (!parent) return fail(GC_ERR_INVALID_PARAMETER, "the handle pointer is NULL");
    *parent = interface_handle();
    return GC_ERR_SUCCESS;
}

GC_API DevGetNumDataStreams(DEV_HANDLE handle, uint32_t *count) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_DEVICE, &error)) return error;
    if (!count) return fail(GC_ERR_INVALID_PARAMETER, "the count pointer is NULL");
    *count = 1;
    return GC_ERR_SUCCESS;
}

GC_API DevGetDataStreamID(DEV_HANDLE handle, uint32_t index, char *id, size_t *size) {
    GC_ERROR error;
    if (!module_of_kind(handle, MODULE_DEVICE, &error)) return error;
    if (index > 0) return fail(GC_ERR_INVALID_INDEX, "there is one data stream");
    return answer_string((answer_t){NULL, id, size}, SIMCAM_STREAM_ID);
}

GC_API DevOpenDataStream(DEV_HANDLE handle, const char *id, DS_HANDLE *opened) {
    GC_ERROR error;
    module_t *device = module_of_kind(handle, MODULE_DEVICE, &error);
    if (!device) return error;
    if (!opened || !id) return fail(GC_ERR_INVALID_PARAMETER, "the stream id or the handle pointer is NULL");
    if (strcmp(id, SIMCAM_STREAM_ID) != 0) return fail(GC_ERR_INVALID_ID, "there is no data stream %.64s", id);
    camera_t *camera = device->camera;
    pthread_mutex_lock(&camera->lock);
    bool open = camera->stream.open;
    if (!open) {
        camera->delivered_count = camera->underruns = camera->started = camera->fired = 0;
        camera->stream.open = true;
    }
    pthread_mutex_unlock(&camera->lock);
    if (open) return fail(GC_ERR_RESOURCE_IN_USE, "the data stream is open already");
    *opened = &camera->stream;
    return GC_ERR_SUCCESS;
}
