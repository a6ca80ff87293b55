"""Compiles the simulated camera (stream/camera/simcam) where a C compiler is found; all else is in pyproject.toml."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SIMCAM = Path(__file__).parent / "stream" / "camera" / "simcam"
PRODUCER = "ispeed_simcam.cti"
FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fvisibility=hidden", "-shared"]
FLAGS += ["-Wl,-z,nodelete"]  # never unloaded: a camera that has vanished is to stay away until the process ends


class BuildWithSimcam(build_py):
    """Puts the producer beside its sources, and into what is packed; without a compiler the rest still installs."""

    def run(self) -> None:
        built = self.compile_simcam()
        super().run()
        if built and not self.editable_mode:
            folder = Path(self.build_lib, "ispeed", "stream", "camera", "simcam")
            self.copy_file(str(SIMCAM / PRODUCER), str(folder / PRODUCER))

    def compile_simcam(self) -> bool:
        compiler = shlex.split(os.environ.get("CC", "")) or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
        sources = sorted(source.name for source in SIMCAM.glob("*.c"))
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, PRODUCER)
            command = [*compiler, *FLAGS, "-o", str(output), *sources, "-lm", "-lpthread"]
            try:
                if not compiler:
                    raise OSError("no C compiler was found")
                subprocess.run(command, cwd=SIMCAM, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                self.warn(f"the simulated camera is left out: {error}")
                return False
            # A new file in place of the old one: a running program keeps the one that it has loaded.
            shutil.copy(output, SIMCAM / f"{PRODUCER}.new")
            os.replace(SIMCAM / f"{PRODUCER}.new", SIMCAM / PRODUCER)
        return True


class PlatformWheel(bdist_wheel):
    """One wheel for every Python 3: what is compiled does not depend on the interpreter."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class CompiledDistribution(Distribution):
    """Says that there is compiled code, which setuptools cannot see: it has no Extension."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithSimcam, "bdist_wheel": PlatformWheel}, distclass=CompiledDistribution)
