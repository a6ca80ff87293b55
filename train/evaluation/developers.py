"""What makes pictures of raw frames: engines, checkpoints as engines, and baselines.

    classic, lwisp, FILE.onnx, FILE.plan, FILE.pt2    as isp-stream --engine takes them
    FILE.pt                                           a checkpoint of isp-train, exported to a core
    cv2-ea                                            OpenCV's edge-aware demosaic
    canonical                                         what ParamISP is built on, without learning (`steered`)
    classic-curve                                     classic, then the best curve for each set (`curve`)
    X+nlm:H,HCOLOR                                    any of these, then OpenCV's non-local means
    X+filter:FILE.pt                                  any of these, then a network that isp-train fitted to pictures

Every one is given the frame's white balance, the camera's matrix and the sRGB curve, but for models that have learned
colours of their own; and models that are told the camera's exposure and gain are told those of the frame.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ...engines.engine import Engine, Precision
from ...engines.errors import UserError
from ...engines.inputs import takes_matrix
from ...engines.opening import open_engine
from ...engines.plan import read_plan_info
from ...engines.quality import params
from ...engines.reference import levelled, srgb_curve
from ...engines.slots import Slots
from ...engines.zoo.catalogue import names, zoo_path
from ..protocols import opencv
from .frames import Frame, Matrix, Picture

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from .inverse import Inverter
    from .settings import AnySet

CLASSIC, EDGE_AWARE, CURVE = "classic", "cv2-ea", "-curve"
NLM, FILTER = "+nlm:", "+filter:"
PLANS = (".plan", ".engine")

SMALL_WINDOW, LARGE_WINDOW = 7, 21
"""Of non-local means, in pixels: what is compared, and where it is looked for. Those of OpenCV's documentation."""

EnginePrecision = Literal["auto", "fp32", "bf16"]


class Skipped(Exception):
    """A developer that does not fit these frames, and why."""


class Developer(Protocol):
    """One row of a table.

    Attributes:
        label: What it is called: as the user named it.
    """

    label: str

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """Get ready for frames like this one, which costs nothing if it is.

        Raises:
            Skipped: It is for frames of another format.
            UserError: It cannot develop such frames.
        """
        ...

    def develop(self, frame: Frame) -> Picture:
        """The picture, a fresh array."""
        ...

    def facts(self) -> dict[str, Any]:
        """What it is, in JSON values."""
        ...

    def close(self) -> None:
        """Free memory. Harmless when called twice."""
        ...


def make_developer(spec: str, precision: EnginePrecision = "fp32") -> Developer:
    """What a user named (see the module).

    Args:
        spec: The name.
        precision: What a model computes in where there is a choice; plans have none, and "auto" takes the fastest.

    Raises:
        UserError: There is nothing of that name, or it cannot be read.
    """
    if spec == "auto":
        raise UserError("auto is a plan on one machine and classic on another; name what is to be measured")
    base, mark, checkpoint = spec.rpartition(FILTER)
    if mark:
        if not checkpoint:
            raise UserError(f"{spec} does not say which network; name its checkpoint, as in {CLASSIC}{FILTER}FILE.pt")
        from ..checkpoint import load_checkpoint
        from ..models import form_of

        network = load_checkpoint(Path(checkpoint))  # before the base, which would have to be closed again
        if (form := form_of(network.network)) != "rgb":
            raise UserError(
                f"{checkpoint} holds a network of the form {form}; only those of the form rgb filter pictures"
            )
        return Filtered(make_developer(base, precision), checkpoint, network)
    base, mark, strengths = spec.partition(NLM)
    if mark:
        cv2, given = opencv(spec), _strengths(spec, strengths)
        return Denoised(make_developer(base, precision), cv2, *given)
    if spec == EDGE_AWARE:
        return EdgeAware()
    if spec == CLASSIC + CURVE:
        from .curve import CurveDeveloper

        return CurveDeveloper(make_developer(CLASSIC, precision))
    if spec == "canonical":
        from .steered import CanonicalDeveloper

        return CanonicalDeveloper()
    if Path(spec).suffix.lower() == ".pt":
        return _of_checkpoint(spec, precision)
    return EngineDeveloper(spec, spec, precision)


def _of_checkpoint(spec: str, precision: EnginePrecision) -> Developer:
    from ..checkpoint import load_checkpoint
    from ..models import form_of

    checkpoint = load_checkpoint(Path(spec))
    if form_of(checkpoint.network) == "inverse":
        from .steered import InverseDeveloper

        return InverseDeveloper(spec, checkpoint)
    return CheckpointDeveloper(spec, precision, checkpoint)


class EngineDeveloper:
    """An engine, opened for one format at a time. See `Developer`."""

    def __init__(self, label: str, spec: str, precision: EnginePrecision) -> None:
        """Opened once, to see that it can be. Raises UserError."""
        self.label, self._spec = label, spec
        self._plan = Path(spec) if Path(spec).suffix.lower() in PLANS else None
        has_choice = spec != CLASSIC and self._plan is None
        self._precision: Precision | None = precision if has_choice and precision != "auto" else None
        self._takes_matrix = _takes_matrix(spec)
        self._engine: Engine | None = None
        self._ready: tuple[Any, ...] = ()
        self._facts: dict[str, Any] = {}
        if self._plan is None:
            open_engine(spec, precision=self._precision).close()
        else:  # which is opened only when there are frames for it
            read_plan_info(self._plan)

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`."""
        fmt = frame.raw_format
        wanted = fmt, None if matrix is None else matrix.tobytes()
        if self._engine is not None and wanted == self._ready:
            return
        self._release()
        if self._plan is not None:
            _refuse_other_format(self._plan, frame)
        given = matrix if self._takes_matrix else None
        engine = open_engine(self._spec, precision=self._precision, colour_matrix=given, raw_format=fmt)
        try:
            self._raw, self._srgb = Slots(1, fmt.payload_size), Slots(1, fmt.width * fmt.height * 3)
            engine.prepare(fmt, 1, self._raw, self._srgb)
        except BaseException:
            engine.close()
            raise
        self._engine, self._ready = engine, wanted
        self._facts = asdict(engine.info) | {"engine_id": engine.info.engine_id, "takes_matrix": self._takes_matrix}

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        if self._engine is None:
            raise RuntimeError("the engine is not prepared")
        self._raw.slot(0)[:] = frame.raw
        told = params(self._engine.info.inputs, frame.gains, np.array(frame.camera, np.float32))
        self._engine.develop([0], [0], told).wait()
        return self._srgb.slot(0).reshape(frame.raw_format.height, frame.raw_format.width, 3).copy()

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`: what the engine says of itself."""
        names = ("name", "backend", "precision", "weights_sha256", "takes_matrix")
        return {name: self._facts[name] for name in names if name in self._facts}

    def close(self) -> None:
        """See `Developer.close`."""
        self._release()

    def _release(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None


class CheckpointDeveloper(EngineDeveloper):
    """A checkpoint, exported to a core that an engine develops with. See `Developer`.

    Attributes:
        inverter: See `inverse.Inverter`; None for a network that goes one way.
    """

    def __init__(self, spec: str, precision: EnginePrecision, checkpoint: Checkpoint) -> None:
        """Raises UserError: the checkpoint is of no network that develops raw frames."""
        from ..export import export_checkpoint
        from ..models import form_of

        if (form := form_of(checkpoint.network)) == "rgb":
            raise UserError(f"{spec} is a network for pictures; put it behind an engine: {CLASSIC}{FILTER}{spec}")
        if form not in ("raw", "cycle"):
            raise UserError(f"{spec} is a network of the form {form}, which develops nothing; give one of the form raw")
        self.inverter: Inverter | None = None
        if form == "cycle":
            from .inverse import Networks

            self.inverter = Networks(checkpoint)
        self._folder = tempfile.TemporaryDirectory(prefix="ispeed-")
        path = Path(self._folder.name) / f"{Path(spec).stem}.onnx"
        try:
            self._run = export_checkpoint(checkpoint, path).run
            super().__init__(spec, str(path), precision)
        except BaseException:
            self._folder.cleanup()
            raise

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`; and the run that it comes from."""
        return super().facts() | {"run": self._run}

    def close(self) -> None:
        """See `Developer.close`."""
        super().close()
        self._folder.cleanup()


class EdgeAware:
    """OpenCV's edge-aware demosaic between white balance, matrix and curve as the classic engine has them, in 16 bits.

    See `Developer`.
    """

    label = EDGE_AWARE

    def __init__(self) -> None:
        """Raises UserError: OpenCV is not installed."""
        self._cv2 = opencv(EDGE_AWARE)
        self._matrix = np.eye(3)

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`."""
        self._matrix = np.eye(3) if matrix is None else matrix.astype(np.float64)

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        cv2 = self._cv2
        # OpenCV names a pattern by the second row's second and third pixel
        code = {
            "RGGB": cv2.COLOR_BayerBG2RGB_EA,
            "GRBG": cv2.COLOR_BayerGB2RGB_EA,
            "GBRG": cv2.COLOR_BayerGR2RGB_EA,
            "BGGR": cv2.COLOR_BayerRG2RGB_EA,
        }[frame.raw_format.cfa]
        light = levelled(frame.raw, frame.raw_format).clip(0, 1)
        colours = cv2.demosaicing(np.rint(light * 65535).astype(np.uint16), code) / 65535
        balanced = (colours * frame.gains.astype(np.float64)).clip(max=1)
        return np.rint(srgb_curve(balanced @ self._matrix.T) * 255).astype(np.uint8)

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`."""
        return {"name": self.label, "backend": f"OpenCV {self._cv2.__version__}"}

    def close(self) -> None:
        """See `Developer.close`; there is nothing to free."""


class BehindDeveloper:
    """Something behind what makes the picture. See `Developer`."""

    def __init__(self, base: Developer, mark: str) -> None:
        self.label, self._base = base.label + mark, base

    def fit(self, settings: AnySet, seed: int, most: int | None = None) -> None:
        """See `curve.CurveDeveloper.fit`, if one is among what it is behind."""
        if isinstance(self._base, BehindDeveloper):
            self._base.fit(settings, seed, most)

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`."""
        self._base.prepare(frame, matrix)

    def close(self) -> None:
        """See `Developer.close`."""
        self._base.close()


class Denoised(BehindDeveloper):
    """Non-local means behind something else (Buades et al. 2005, as OpenCV has it for pictures). See `Developer`.

    Args:
        base: What makes the picture.
        cv2: OpenCV.
        strength: For brightness, `h` of OpenCV.
        colour_strength: For colours, `hColor`.
    """

    def __init__(self, base: Developer, cv2: Any, strength: float, colour_strength: float) -> None:
        super().__init__(base, f"{NLM}{strength:g},{colour_strength:g}")
        self._strengths, self._cv2 = (strength, colour_strength), cv2

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        return denoised(self._cv2, self._base.develop(frame), *self._strengths)

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`: those of the base, and the strengths."""
        strength, colour_strength = self._strengths
        return self._base.facts() | {
            "nlm": {"h": strength, "h_color": colour_strength, "opencv": self._cv2.__version__}
        }


class Filtered(BehindDeveloper):
    """A network of the form "rgb" behind something else, through torch in fp32. See `Developer`.

    Args:
        base: What makes the picture.
        name: Of the network's checkpoint.
        checkpoint: The network.
    """

    def __init__(self, base: Developer, name: str, checkpoint: Checkpoint) -> None:
        super().__init__(base, f"{FILTER}{name}")
        self._checkpoint = checkpoint

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        from ..filter import filter_picture

        return filter_picture(self._checkpoint, self._base.develop(frame))

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`: those of the base, and of the network."""
        checkpoint = self._checkpoint
        return self._base.facts() | {"filter": {"name": checkpoint.model, "run": checkpoint.run}}


def denoised(cv2: Any, picture: Picture, strength: float, colour_strength: float) -> Picture:
    """A picture behind OpenCV's non-local means for colour pictures, which takes blue first."""
    backwards = np.ascontiguousarray(picture[..., ::-1])
    done = cv2.fastNlMeansDenoisingColored(backwards, None, strength, colour_strength, SMALL_WINDOW, LARGE_WINDOW)
    return np.ascontiguousarray(done[..., ::-1])


def _strengths(spec: str, text: str) -> tuple[float, float]:
    try:
        strength, colour_strength = (float(number) for number in text.split(","))
    except ValueError:
        strength = colour_strength = float("nan")
    if not (0 < strength < 1000 and 0 < colour_strength < 1000):
        raise UserError(f"{spec} does not say how strong; write H and HCOLOR in codes, as in classic{NLM}5,10")
    return strength, colour_strength


def _takes_matrix(spec: str) -> bool:
    """Whether an engine applies the camera's matrix, or its network is told it: not one that has it inside, nor one
    that has learned colours."""
    suffix = Path(spec).suffix.lower()
    if suffix in PLANS:
        return False
    if spec in names() or suffix == ".onnx":
        from ...engines.core import read_core

        info = read_core(zoo_path(spec) if spec in names() else Path(spec)).info
        return info.output == "linear" or takes_matrix(info.inputs)
    if suffix == ".pt2" and Path(spec).is_file():
        from ...engines.torch_gpu import load_program

        info = load_program(Path(spec))[1]
        return info.output == "linear" or takes_matrix(info.inputs)
    return True


def _refuse_other_format(plan: Path, frame: Frame) -> None:
    from ...engines.plan import why_not

    info = read_plan_info(plan)
    if info.format != frame.raw_format:
        raise Skipped(why_not(info, None, frame.raw_format, file=str(plan)))
