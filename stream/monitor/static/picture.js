// The picture: live, or a still whose every pixel can be read.

import { unpack } from "./connection.js";
import { drawHistogram } from "./charts.js";

const $ = (id) => document.getElementById(id);
const LOUPE = 11; // pixels across
const OVER = { low: [40, 120, 255], high: [255, 40, 40], both: [255, 60, 255] };

export class Picture {
  constructor(connection) {
    this.connection = connection;
    this.canvas = $("live");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.clipping = false;
    this.still = null; // {header, pixels, x, y}
    this.taking = null; // the still that is on its way
    this.camera = null;
    this.width = 960;
    this.fps = 10;
    this.shown = 0; // pictures since the page was opened
    $("clipping").onclick = () => this.setClipping(!this.clipping);
    $("still").onclick = () => (this.still ? this.leaveStill() : this.takeStill());
    $("save").onclick = () => this.save();
    this.canvas.onclick = (event) => (this.still ? this.probe(event) : this.takeStill(event));
    this.canvas.onpointermove = (event) => this.still && this.probe(event);
    document.addEventListener("visibilitychange", () => this.ask());
    new ResizeObserver(() => this.measure()).observe($("picture"));
  }

  // What to show: a camera's index, null before one is known.
  choose(camera) {
    if (camera !== this.camera) {
      this.camera = camera;
      this.leaveStill(false);
      $("empty").hidden = false;
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      drawHistogram($("histogram"), new Uint32Array(768));
      $("clipped").textContent = "";
      $("readout").replaceChildren();
      this.taking = null; // a still that is on its way is not shown
    }
    this.ask();
  }

  measure() {
    const needed = $("picture").clientWidth * (window.devicePixelRatio || 1);
    const width = needed <= 400 ? 480 : 960;
    if (width !== this.width) {
      this.width = width;
      this.ask();
    }
  }

  // Tells the monitor what to send: nothing while a still is looked at, or nobody looks.
  ask() {
    const camera = this.still || document.hidden ? null : this.camera;
    this.connection.send({ type: "view", camera, width: this.width, fps: this.fps, overlay: this.clipping });
  }

  async show(header, histogram, jpeg, mask) {
    try {
      const images = await Promise.all([createImageBitmap(jpeg), mask && createImageBitmap(mask)]);
      if (!this.still && header.camera === this.camera) {
        this.draw(header, histogram, ...images);
      }
      images.forEach((image) => image && image.close());
    } finally {
      this.connection.send({ type: "ack", sequence: header.sequence });
    }
  }

  draw(header, histogram, image, mask) {
    if (this.canvas.width !== image.width || this.canvas.height !== image.height) {
      this.canvas.width = image.width;
      this.canvas.height = image.height;
    }
    this.context.drawImage(image, 0, 0);
    if (mask && this.clipping) {
      this.context.imageSmoothingEnabled = false;
      this.context.drawImage(mask, 0, 0, image.width, image.height);
    }
    this.shown += 1;
    $("empty").hidden = true;
    this.canvas.dataset.frame = header.frame_id;
    this.canvas.dataset.shown = this.shown;
    this.describe(header);
    this.showHistogram(histogram, header.clipped_low, header.clipped_high);
  }

  describe(header) {
    const parts = ["frame ", bold(header.frame_id)];
    if (header.exposure_us !== null) {
      parts.push(` · ${number(header.exposure_us)} µs`);
    }
    if (header.gain_db !== null) {
      parts.push(` · ${number(header.gain_db)} dB`);
    }
    $("readout").replaceChildren(...parts);
  }

  showHistogram(histogram, low, high) {
    drawHistogram($("histogram"), histogram);
    const percent = (shares) => `${(100 * Math.max(...shares)).toFixed(1)} %`;
    $("clipped").textContent = `at 0: ${percent(low)} · at 255: ${percent(high)}`;
    $("clipped").classList.toggle("bad", Math.max(...high) > 0.01);
  }

  // -- stills -------------------------------------------------------------------------------------------------

  async takeStill(event) {
    if (this.camera === null || this.taking) {
      return;
    }
    const taking = (this.taking = { camera: this.camera });
    try {
      const response = await fetch(`/still?camera=${taking.camera}&format=raw`);
      if (!response.ok) {
        throw new Error((await response.json()).error);
      }
      const buffer = await response.arrayBuffer();
      const [header, start] = unpack(buffer);
      if (this.taking === taking) {
        this.enterStill(header, new Uint8Array(buffer, start), event);
      }
    } catch (error) {
      if (this.taking === taking) {
        say(error.message, true);
      }
    } finally {
      if (this.taking === taking) {
        this.taking = null;
      }
    }
  }

  enterStill(header, pixels, event) {
    const at = event && this.place(event, header.width, header.height);
    this.still = { header, pixels, x: at ? at[0] : header.width >> 1, y: at ? at[1] : header.height >> 1 };
    this.canvas.width = header.width;
    this.canvas.height = header.height;
    document.body.dataset.mode = "still";
    $("still").textContent = "Back to live";
    $("tag").textContent = `still: frame ${header.frame_id}`;
    $("empty").hidden = true;
    for (const id of ["save", "tag", "loupe"]) {
      $(id).hidden = false;
    }
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("aria-label", "Still: arrow keys move, Escape goes back to live");
    this.drawStill();
    this.countStill();
    this.ask();
    say("");
  }

  leaveStill(ask = true) {
    if (!this.still) {
      return;
    }
    this.still = null;
    delete document.body.dataset.mode;
    $("still").textContent = "Still";
    for (const id of ["save", "tag", "loupe"]) {
      $(id).hidden = true;
    }
    this.canvas.removeAttribute("tabindex");
    this.canvas.setAttribute("aria-label", "Live picture: click for a still");
    if (ask) {
      this.ask();
    }
  }

  drawStill() {
    const { header, pixels } = this.still;
    const image = this.context.createImageData(header.width, header.height);
    const out = image.data;
    for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
      let r = pixels[from], g = pixels[from + 1], b = pixels[from + 2];
      if (this.clipping) {
        const low = r === 0 || g === 0 || b === 0, high = r === 255 || g === 255 || b === 255;
        if (low || high) {
          [r, g, b] = low && high ? OVER.both : low ? OVER.low : OVER.high;
        }
      }
      out[to] = r;
      out[to + 1] = g;
      out[to + 2] = b;
      out[to + 3] = 255;
    }
    this.context.putImageData(image, 0, 0);
    this.drawLoupe();
  }

  countStill() {
    const { pixels } = this.still;
    const counts = new Uint32Array(768);
    for (let at = 0; at < pixels.length; at += 3) {
      counts[pixels[at]] += 1;
      counts[256 + pixels[at + 1]] += 1;
      counts[512 + pixels[at + 2]] += 1;
    }
    const share = (value) => [0, 256, 512].map((start) => counts[start + value] / (pixels.length / 3));
    this.showHistogram(counts, share(0), share(255));
  }

  // The pixel of a still under a pointer, null outside.
  place(event, width, height) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height);
    const x = Math.floor((event.clientX - box.left - (box.width - width * scale) / 2) / scale);
    const y = Math.floor((event.clientY - box.top - (box.height - height * scale) / 2) / scale);
    return x >= 0 && y >= 0 && x < width && y < height ? [x, y] : null;
  }

  probe(event) {
    const { header } = this.still;
    const at = this.place(event, header.width, header.height);
    if (at) {
      [this.still.x, this.still.y] = at;
      this.drawLoupe();
    }
  }

  // Whether the key was for the still.
  key(event) {
    if (!this.still) {
      return false;
    }
    const { header } = this.still;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") {
      this.leaveStill();
    } else if (step) {
      this.still.x = Math.min(header.width - 1, Math.max(0, this.still.x + step[0]));
      this.still.y = Math.min(header.height - 1, Math.max(0, this.still.y + step[1]));
      this.drawLoupe();
    } else {
      return false;
    }
    return true;
  }

  drawLoupe() {
    const { header, pixels, x, y } = this.still;
    const context = $("loupe").getContext("2d");
    const size = $("loupe").width / LOUPE, half = LOUPE >> 1;
    for (let row = 0; row < LOUPE; row++) {
      for (let column = 0; column < LOUPE; column++) {
        const px = x + column - half, py = y + row - half;
        const inside = px >= 0 && py >= 0 && px < header.width && py < header.height;
        const at = 3 * (py * header.width + px);
        context.fillStyle = inside ? `rgb(${pixels[at]},${pixels[at + 1]},${pixels[at + 2]})` : "#000";
        context.fillRect(column * size, row * size, size, size);
      }
    }
    context.strokeStyle = "#fff";
    context.strokeRect(half * size + 0.5, half * size + 0.5, size - 1, size - 1);
    const at = 3 * (y * header.width + x);
    const [r, g, b] = pixels.subarray(at, at + 3);
    $("readout").replaceChildren("x ", bold(x), " y ", bold(y), " · R ", bold(r), " G ", bold(g), " B ", bold(b));
  }

  save() {
    const { header, pixels } = this.still;
    const clipping = this.clipping;
    if (clipping) {
      this.clipping = false; // the picture itself, without marks
      this.drawStill();
    }
    this.canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `camera${header.camera}-${String(header.frame_id).padStart(8, "0")}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      if (clipping && this.still && this.still.pixels === pixels) {
        this.clipping = true;
        this.drawStill();
      }
    });
  }

  setClipping(on) {
    this.clipping = on;
    $("clipping").setAttribute("aria-pressed", String(on));
    if (this.still) {
      this.drawStill();
    }
    this.ask();
  }
}

function bold(value) {
  const element = document.createElement("b");
  element.textContent = value;
  return element;
}

export function number(value) {
  return Number.isInteger(value) ? String(value) : String(+value.toPrecision(6));
}

let saidTimer = 0;

// What came of a button, over the picture for a while.
export function say(text, bad = false) {
  clearTimeout(saidTimer);
  $("action-said").textContent = text;
  $("action-said").classList.toggle("bad", bad);
  saidTimer = setTimeout(() => ($("action-said").textContent = ""), bad ? 12000 : 4000);
}
