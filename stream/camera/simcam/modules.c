/* The descriptions of the modules: camera.xml for the camera, a small one for every other port. A consumer reads
 * them through the port, so all of them lie in the library. */
#include <stdio.h>
#include <string.h>

#include "simcam.h"

/* camera.xml, put into the library by the assembler. */
__asm__(".section .rodata\n"
        ".global simcam_camera_xml\n.hidden simcam_camera_xml\nsimcam_camera_xml:\n"
        ".incbin \"camera.xml\"\n"
        ".global simcam_camera_xml_end\n.hidden simcam_camera_xml_end\nsimcam_camera_xml_end:\n"
        ".byte 0\n.previous\n");
extern const char simcam_camera_xml[], simcam_camera_xml_end[];

#define HEAD(model, guid)                                                                                              \
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"                                                                     \
    "<RegisterDescription ModelName=\"" model "\" VendorName=\"" SIMCAM_VENDOR "\" ToolTip=\"Simulated camera\" "      \
    "StandardNameSpace=\"None\" SchemaMajorVersion=\"1\" SchemaMinorVersion=\"1\" SchemaSubMinorVersion=\"0\" "        \
    "MajorVersion=\"1\" MinorVersion=\"0\" SubMinorVersion=\"0\" "                                                     \
    "ProductGuid=\"0c5a9d3e-7f54-4b0c-9b5e-6d1f2a80c1" guid "\" "                                                      \
    "VersionGuid=\"3e8b7c12-94d6-4f1a-8c27-51b0de64a2" guid "\" "                                                      \
    "xmlns=\"http://www.genicam.org/GenApi/Version_1_1\" "                                                             \
    "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" "                                                         \
    "xsi:schemaLocation=\"http://www.genicam.org/GenApi/Version_1_1 "                                                  \
    "http://www.genicam.org/GenApi/GenApiSchema_Version_1_1.xsd\">\n"

#define TEXT(name, address, port)                                                                                      \
    "<StringReg Name=\"" name "\" NameSpace=\"Standard\"><Address>" address "</Address><Length>64</Length>"            \
    "<AccessMode>RO</AccessMode><pPort>" port "</pPort></StringReg>\n"

#define TYPE(name)                                                                                                     \
    "<Enumeration Name=\"" name "\" NameSpace=\"Standard\"><EnumEntry Name=\"" SIMCAM_TLTYPE                           \
    "\" NameSpace=\"Standard\"><Value>0</Value></EnumEntry><Value>0</Value></Enumeration>\n"

#define FEATURE(name) "<pFeature>" name "</pFeature>"
#define ROOT(features) "<Category Name=\"Root\" NameSpace=\"Standard\">" features "</Category>\n"
#define TAIL(port) "<Port Name=\"" port "\" NameSpace=\"Standard\"/>\n</RegisterDescription>\n"

static const char system_xml[] =
    HEAD("SimCamSystem", "01") ROOT(FEATURE("TLID") FEATURE("TLVendorName") FEATURE("TLModelName") FEATURE("TLType"))
        TEXT("TLID", "0x0", "TLPort") TEXT("TLVendorName", "0x40", "TLPort") TEXT("TLModelName", "0x80", "TLPort")
            TYPE("TLType") TAIL("TLPort");

static const char interface_xml[] =
    HEAD("SimCamInterface", "02") ROOT(FEATURE("InterfaceID") FEATURE("InterfaceType"))
        TEXT("InterfaceID", "0x0", "InterfacePort") TYPE("InterfaceType") TAIL("InterfacePort");

static const char device_xml[] =
    HEAD("SimCamDevice", "03") ROOT(FEATURE("DeviceID") FEATURE("DeviceVendorName") FEATURE("DeviceModelName")
                                        FEATURE("DeviceSerialNumber") FEATURE("DeviceType"))
        TEXT("DeviceID", "0x0", "DevicePort") TEXT("DeviceVendorName", "0x40", "DevicePort")
            TEXT("DeviceModelName", "0x80", "DevicePort") TEXT("DeviceSerialNumber", "0xC0", "DevicePort")
                TYPE("DeviceType") TAIL("DevicePort");

static const char stream_xml[] = HEAD("SimCamStream", "04") ROOT(FEATURE("StreamID") FEATURE("StreamType"))
    TEXT("StreamID", "0x0", "StreamPort") TYPE("StreamType") TAIL("StreamPort");

description_t module_description(const module_t *module) {
    switch (module->kind) {
    case MODULE_SYSTEM: return (description_t){"simcam_system.xml", system_xml, sizeof system_xml - 1};
    case MODULE_INTERFACE: return (description_t){"simcam_interface.xml", interface_xml, sizeof interface_xml - 1};
    case MODULE_DEVICE: return (description_t){"simcam_device.xml", device_xml, sizeof device_xml - 1};
    case MODULE_STREAM: return (description_t){"simcam_stream.xml", stream_xml, sizeof stream_xml - 1};
    default: break;
    }
    return (description_t){"simcam.xml", simcam_camera_xml, (size_t)(simcam_camera_xml_end - simcam_camera_xml)};
}

const char *module_port_name(const module_t *module) {
    static const char *const names[] = {"TLPort", "InterfacePort", "DevicePort", "Device", "StreamPort"};
    return names[module->kind];
}

/* Values that GenTL prescribes for PORT_INFO_MODULE. */
const char *module_type_name(const module_t *module) {
    static const char *const names[] = {"TLSystem", "TLInterface", "TLDevice", "Device", "TLDataStream"};
    return names[module->kind];
}

/* The text registers of the small descriptions: up to four of 64 bytes each. */
GC_ERROR module_register_read(const module_t *module, uint64_t address, void *bytes, size_t size) {
    enum { TEXT_BYTES = 64, TEXT_COUNT = 4 };
    const char *texts[TEXT_COUNT] = {0};
    switch (module->kind) {
    case MODULE_SYSTEM: texts[0] = SIMCAM_TL_ID, texts[1] = SIMCAM_VENDOR, texts[2] = SIMCAM_MODEL; break;
    case MODULE_INTERFACE: texts[0] = SIMCAM_INTERFACE_ID; break;
    case MODULE_DEVICE:
        texts[0] = module->camera->id, texts[1] = SIMCAM_VENDOR, texts[2] = SIMCAM_MODEL;
        texts[3] = module->camera->serial;
        break;
    case MODULE_STREAM: texts[0] = SIMCAM_STREAM_ID; break;
    default: break;
    }
    uint64_t index = address / TEXT_BYTES;
    if (address % TEXT_BYTES || size > TEXT_BYTES || index >= TEXT_COUNT || !texts[index])
        return fail(GC_ERR_INVALID_ADDRESS, "no register of %zu bytes at 0x%llx", size, (unsigned long long)address);
    char padded[TEXT_BYTES] = {0};
    memcpy(padded, texts[index], strlen(texts[index]));
    memcpy(bytes, padded, size);
    return GC_ERR_SUCCESS;
}
