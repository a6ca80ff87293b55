from __future__ import annotations

from pathlib import Path

import pytest

from ispeed.engines.cuda.driver import Gpu, NoGpu
from ispeed.engines.errors import UserError
from ispeed.stream import check
from ispeed.stream.camera import CameraInfo

GENEROUS = {"rtprio": 99, "memlock": -1, "nofile": 4096}
GPU = Gpu("Test GPU", "8.6", 24 << 30, "12.4")


@pytest.fixture
def machine(tmp_path):
    """Writes a file of a made-up machine."""

    def write(path: str, text: str = "") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    return write


def fails(message: str):
    def fail():
        raise UserError(message)

    return fail


def only(findings) -> check.Finding:
    (finding,) = findings
    return finding


def test_report_of_this_machine_names_the_simulated_camera_and_only_known_levels(runtime_dir, monkeypatch):
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    findings = check.report()
    assert {finding.level for finding in findings} <= {"ok", "warn", "fail"}
    assert [f.what for f in findings if "SIM0001" in f.what] == ["camera 0: SIM0001, ispeed SimCam, free"]
    assert all("\n" not in finding.what + finding.mend for finding in findings)


def test_every_warning_and_failure_that_a_command_can_mend_has_one(machine):
    root = machine("proc/sys/net/core/rmem_max", "212992")
    machine("sys/class/net/eth1/mtu", "1500")
    machine("sys/class/net/eth1/device/vendor")
    machine("sys/class/net/eth1/operstate", "up")
    machine("sys/module/usbcore/parameters/usbfs_memory_mb", "16")
    machine("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    findings = [
        *check.check_sockets(root),
        *check.check_mtu(root),
        *check.check_usb(root),
        *check.check_governor(root),
        *check.check_limits({"rtprio": 0, "memlock": 8 << 20, "nofile": 256}, fifo=False),
        *check.check_binding(fails("the GenICam binding needs libpython3.11.so.1.0")),
        *check.check_simulated_camera(fails("no compiler")),
    ]
    assert [finding.level for finding in findings] == ["warn"] * 7 + ["fail", "warn"]
    mends = [finding.mend for finding in findings]
    assert mends[0] == "sudo sysctl -w net.core.rmem_max=33554432"
    assert mends[1] == "sudo ip link set eth1 mtu 9000"
    assert "usbfs_memory_mb" in mends[2]
    assert "performance" in mends[3]
    assert [name in mend for name, mend in zip(("rtprio", "memlock", "nofile"), mends[4:7], strict=True)] == [True] * 3
    assert mends[7] == "sudo apt install libpython3.11"
    assert "gcc" in mends[8]


def test_a_machine_in_good_order_has_nothing_to_mend(machine):
    root = machine("proc/sys/net/core/rmem_max", "67108864")
    machine("sys/class/net/eth1/mtu", "9000")
    machine("sys/class/net/eth1/device/vendor")
    machine("sys/class/net/eth1/operstate", "up")
    machine("sys/module/usbcore/parameters/usbfs_memory_mb", "1000")
    machine("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance")
    machine("proc/meminfo", "MemTotal: 99 kB\nMemAvailable: 8388608 kB\n")
    findings = [
        *check.check_sockets(root),
        *check.check_mtu(root),
        *check.check_usb(root),
        *check.check_governor(root),
        *check.check_memory(root),
        *check.check_limits(GENEROUS, fifo=False),
        *check.check_gpu(lambda: (GPU, GPU)),
        *check.check_machine("x86_64"),
    ]
    assert len(findings) == 10
    assert {(finding.level, finding.mend) for finding in findings} == {("ok", "")}


def test_interfaces_that_carry_no_camera_are_left_out(machine):
    root = machine("sys/class/net/lo/mtu", "1500")
    machine("sys/class/net/wlan0/mtu", "1500")
    machine("sys/class/net/wlan0/device/vendor")
    machine("sys/class/net/wlan0/wireless/x")
    machine("sys/class/net/eth9/mtu", "1500")
    machine("sys/class/net/eth9/device/vendor")
    machine("sys/class/net/eth9/operstate", "down")
    assert list(check.check_mtu(root)) == []


def test_a_machine_without_the_files_is_not_complained_about(tmp_path):
    assert list(check.check_sockets(tmp_path)) == list(check.check_usb(tmp_path)) == []
    assert only(check.check_governor(tmp_path)).level == "ok"


def test_little_memory_is_a_warning(machine):
    assert only(check.check_memory(machine("proc/meminfo", "MemAvailable: 1024 kB"))).level == "warn"


def test_cap_sys_nice_makes_up_for_the_rtprio_limit():
    assert next(iter(check.check_limits({**GENEROUS, "rtprio": 0}, fifo=True))).level == "ok"


@pytest.mark.parametrize(("number", "says"), [(1, "1 NVIDIA GPU with"), (2, "2 NVIDIA GPUs with")])
def test_gpus_are_those_of_the_driver(number, says):
    finding = only(check.check_gpu(lambda: (GPU,) * number))
    assert (finding.level, finding.what.startswith(says)) == ("ok", True)
    assert "Test GPU, compute capability 8.6" in finding.what


def test_a_machine_without_a_gpu_is_fine():
    def none() -> tuple[Gpu, ...]:
        raise NoGpu("no NVIDIA driver")

    assert only(check.check_gpu(none)) == check.Finding("ok", "no NVIDIA driver")


def test_a_broken_driver_is_a_warning():
    assert only(check.check_gpu(fails("the driver does not work"))) == check.Finding(
        "warn", "the driver does not work", "nvidia-smi"
    )


def test_cameras_that_cannot_be_opened_and_broken_producers_are_warnings():
    busy = CameraInfo(0, "A1", "Acme", "Fast", "U3V", "busy", Path("acme.cti"))
    levels = [finding.level for finding in check.describe_cameras([busy], ["the GenTL producer x does not load"])]
    assert levels == ["warn", "warn"]


def test_no_camera_at_all_is_a_failure_that_names_the_variable():
    finding = only(check.describe_cameras([], []))
    assert finding.level == "fail"
    assert "GENICAM_GENTL64_PATH" in finding.mend


def test_a_named_producer_that_is_not_there_is_a_failure():
    assert only(check.check_cameras(["/nowhere/x.cti"])).what.startswith("there is no GenTL producer /nowhere/x.cti")


def test_other_processors_fail():
    assert only(check.check_machine("aarch64")).level == "fail"


def test_optional_packages_say_what_they_are_for():
    absent = list(check.check_packages(lambda name: False))
    assert [finding.level for finding in absent] == ["warn"] + ["ok"] * (len(absent) - 1)  # openvino comes with ispeed
    assert all(finding.mend.startswith("pip install") for finding in absent)
    assert {finding.what.split()[0] for finding in absent} >= {"openvino", "cv2", "tensorrt", "tensorrt_rtx", "torch"}
    assert all(not finding.mend for finding in check.check_packages(lambda name: True))


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_a_tensorrt_without_pycuda_is_a_warning(module):
    findings = check.check_packages(lambda name: name in ("openvino", module))
    warnings = [finding for finding in findings if finding.level == "warn"]
    assert [finding.what.split()[0] for finding in warnings] == [module]
    assert "pycuda" in warnings[0].what
