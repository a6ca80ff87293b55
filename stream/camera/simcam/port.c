/* Ports: the way to the registers and descriptions of every module. */
#include <stdio.h>
#include <string.h>

#include "simcam.h"

static module_t *port_of(PORT_HANDLE handle, GC_ERROR *error) {
    module_t *module = module_of(handle, error);
    if (module && module->kind == MODULE_EVENT) {
        *error = fail(GC_ERR_INVALID_HANDLE, "an event has no port");
        return NULL;
    }
    return module;
}

/* A camera that has vanished answers nothing until it is closed and opened again. */
static GC_ERROR check_link(const module_t *module) {
    if (module->kind != MODULE_REMOTE) return GC_ERR_SUCCESS;
    pthread_mutex_lock(&module->camera->lock);
    bool gone = module->camera->gone;
    pthread_mutex_unlock(&module->camera->lock);
    return gone ? fail(GC_ERR_IO, "%s does not answer any more", module->camera->serial) : GC_ERR_SUCCESS;
}

static GC_ERROR read_description(const module_t *module, uint64_t offset, void *bytes, size_t size) {
    description_t description = module_description(module);
    if (offset > description.size || size > description.size - offset)
        return fail(GC_ERR_INVALID_ADDRESS, "the description has %zu bytes", description.size);
    memcpy(bytes, description.text + offset, size);
    return GC_ERR_SUCCESS;
}

GC_API GCReadPort(PORT_HANDLE handle, uint64_t address, void *bytes, size_t *size) {
    GC_ERROR error;
    module_t *module = port_of(handle, &error);
    if (!module) return error;
    if (!bytes || !size) return fail(GC_ERR_INVALID_PARAMETER, "the buffer or the size pointer is NULL");
    if ((error = check_link(module))) return error;
    if (address >= DESCRIPTION_ADDRESS) return read_description(module, address - DESCRIPTION_ADDRESS, bytes, *size);
    if (module->kind == MODULE_REMOTE) return register_read(module->camera, address, bytes, *size);
    return module_register_read(module, address, bytes, *size);
}

GC_API GCWritePort(PORT_HANDLE handle, uint64_t address, const void *bytes, size_t *size) {
    GC_ERROR error;
    module_t *module = port_of(handle, &error);
    if (!module) return error;
    if (!bytes || !size) return fail(GC_ERR_INVALID_PARAMETER, "the buffer or the size pointer is NULL");
    if ((error = check_link(module))) return error;
    if (module->kind != MODULE_REMOTE) return fail(GC_ERR_ACCESS_DENIED, "this module has nothing to write");
    return register_write(module->camera, address, bytes, *size);
}

/* On an error *count tells how many entries were done. */
static GC_ERROR each_entry(PORT_HANDLE handle, PORT_REGISTER_STACK_ENTRY *entries, size_t *count, bool write) {
    if (!entries || !count) return fail(GC_ERR_INVALID_PARAMETER, "the entries or the count pointer is NULL");
    for (size_t i = 0; i < *count; i++) {
        size_t size = entries[i].BufferSize; /* the entries are packed, so their members may not be pointed at */
        GC_ERROR error = write ? GCWritePort(handle, entries[i].Address, entries[i].pBuffer, &size)
                               : GCReadPort(handle, entries[i].Address, entries[i].pBuffer, &size);
        entries[i].BufferSize = size;
        if (!error) continue;
        *count = i;
        return error;
    }
    return GC_ERR_SUCCESS;
}

GC_API GCReadPortStacked(PORT_HANDLE handle, PORT_REGISTER_STACK_ENTRY *entries, size_t *count) {
    return each_entry(handle, entries, count, false);
}

GC_API GCWritePortStacked(PORT_HANDLE handle, PORT_REGISTER_STACK_ENTRY *entries, size_t *count) {
    return each_entry(handle, entries, count, true);
}

GC_API GCGetPortInfo(PORT_HANDLE handle, int32_t command, INFO_DATATYPE *type, void *buffer, size_t *size) {
    GC_ERROR error;
    module_t *module = port_of(handle, &error);
    if (!module) return error;
    answer_t to = {type, buffer, size};
    switch (command) {
    case PORT_INFO_ID: return answer_string(to, module->camera ? module->camera->id : SIMCAM_TL_ID);
    case PORT_INFO_VENDOR: return answer_string(to, SIMCAM_VENDOR);
    case PORT_INFO_MODEL: return answer_string(to, SIMCAM_MODEL);
    case PORT_INFO_TLTYPE: return answer_string(to, SIMCAM_TLTYPE);
    case PORT_INFO_MODULE: return answer_string(to, module_type_name(module));
    case PORT_INFO_LITTLE_ENDIAN: return answer_bool(to, true);
    case PORT_INFO_BIG_ENDIAN: return answer_bool(to, false);
    case PORT_INFO_ACCESS_READ: return answer_bool(to, true);
    case PORT_INFO_ACCESS_WRITE: return answer_bool(to, module->kind == MODULE_REMOTE);
    case PORT_INFO_ACCESS_NA: return answer_bool(to, false);
    case PORT_INFO_ACCESS_NI: return answer_bool(to, false);
    case PORT_INFO_VERSION: return answer_string(to, SIMCAM_VERSION);
    case PORT_INFO_PORTNAME: return answer_string(to, module_port_name(module));
    }
    return fail(GC_ERR_NOT_IMPLEMENTED, "there is no port info %d", command);
}

/* ---- where the description is --------------------------------------------------------------------------------- */

static GC_ERROR answer_url(answer_t to, description_t description) {
    char url[128];
    snprintf(url, sizeof url, "local:///%s;%x;%zx?SchemaVersion=1.1.0", description.file_name, DESCRIPTION_ADDRESS,
             description.size);
    return answer_string(to, url);
}

GC_API GCGetPortURL(PORT_HANDLE handle, char *url, size_t *size) {
    GC_ERROR error;
    module_t *module = port_of(handle, &error);
    return module ? answer_url((answer_t){NULL, url, size}, module_description(module)) : error;
}

GC_API GCGetNumPortURLs(PORT_HANDLE handle, uint32_t *count) {
    GC_ERROR error;
    if (!port_of(handle, &error)) return error;
    if (!count) return fail(GC_ERR_INVALID_PARAMETER, "the count pointer is NULL");
    *count = 1;
    return GC_ERR_SUCCESS;
}

GC_API GCGetPortURLInfo(PORT_HANDLE handle, uint32_t index, int32_t command, INFO_DATATYPE *type, void *buffer,
                        size_t *size) {
    GC_ERROR error;
    module_t *module = port_of(handle, &error);
    if (!module) return error;
    if (index > 0) return fail(GC_ERR_INVALID_INDEX, "there is one description");
    description_t description = module_description(module);
    answer_t to = {type, buffer, size};
    switch (command) {
    case URL_INFO_URL: return answer_url(to, description);
    case URL_INFO_SCHEMA_VER_MAJOR: return answer_int32(to, 1);
    case URL_INFO_SCHEMA_VER_MINOR: return answer_int32(to, 1);
    case URL_INFO_FILE_VER_MAJOR: return answer_int32(to, 1);
    case URL_INFO_FILE_VER_MINOR: return answer_int32(to, 0);
    case URL_INFO_FILE_VER_SUBMINOR: return answer_int32(to, 0);
    case URL_INFO_FILE_REGISTER_ADDRESS: return answer_uint64(to, DESCRIPTION_ADDRESS);
    case URL_INFO_FILE_SIZE: return answer_uint64(to, description.size);
    case URL_INFO_SCHEME: return answer_int32(to, URL_SCHEME_LOCAL);
    case URL_INFO_FILENAME: return answer_string(to, description.file_name);
    }
    return fail(GC_ERR_NOT_AVAILABLE, "there is no URL info %d", command);
}
