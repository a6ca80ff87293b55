// The two small charts: histogram, and latency over time. Plain 2D canvas.

const SECONDS = 120;
const INK = { grid: "#2b333d", text: "#8e9aa8", p50: "#4da3ff", p99: "#e0a72e" };

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return [context, width, height];
}

// counts: 768 numbers, red, green and blue. The ends do not set the scale, so that clipping does not flatten the rest.
export function drawHistogram(canvas, counts) {
  const [context, width, height] = prepare(canvas);
  let most = 1;
  for (let channel = 0; channel < 3; channel++) {
    for (let value = 1; value < 255; value++) {
      most = Math.max(most, counts[256 * channel + value]);
    }
  }
  context.strokeStyle = INK.grid;
  context.beginPath();
  for (let quarter = 0; quarter <= 4; quarter++) {
    const x = Math.round((quarter / 4) * (width - 1)) + 0.5;
    context.moveTo(x, 0);
    context.lineTo(x, height);
  }
  context.stroke();
  context.globalCompositeOperation = "lighter";
  ["rgba(230,70,70,.75)", "rgba(60,190,90,.75)", "rgba(70,120,255,.75)"].forEach((ink, channel) => {
    context.fillStyle = ink;
    context.beginPath();
    context.moveTo(0, height);
    for (let value = 0; value < 256; value++) {
      const share = Math.min(1, Math.sqrt(counts[256 * channel + value] / most));
      const y = height - share * (height - 2);
      context.lineTo((value / 256) * width, y);
      context.lineTo(((value + 1) / 256) * width, y);
    }
    context.lineTo(width, height);
    context.fill();
  });
  context.globalCompositeOperation = "source-over";
}

// entries: {time_ms, p50, p99} of the last seconds.
export function drawLatency(canvas, entries, nowMs) {
  const [context, width, height] = prepare(canvas);
  const left = 50, bottom = height - 14, top = 4;
  const known = entries.filter((entry) => entry.p99 > 0 && nowMs - entry.time_ms <= SECONDS * 1000);
  const most = niceAbove(Math.max(1, ...known.map((entry) => entry.p99)));
  context.strokeStyle = INK.grid;
  context.fillStyle = INK.text;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.beginPath();
  for (const share of [0, 0.5, 1]) {
    const y = Math.round(bottom - share * (bottom - top)) + 0.5;
    context.moveTo(left, y);
    context.lineTo(width, y);
    context.fillText(`${+(share * most).toPrecision(3)}${share === 1 ? " ms" : ""}`, left - 5, y + (share === 1 ? 3 : 0));
  }
  context.stroke();
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  context.fillText(`-${SECONDS} s`, left, height - 2);
  context.textAlign = "right";
  context.fillText("now", width, height - 2);
  for (const name of ["p99", "p50"]) {
    line(context, known, name, INK[name], (entry) => [
      left + (1 - (nowMs - entry.time_ms) / (SECONDS * 1000)) * (width - left),
      bottom - Math.min(1, entry[name] / most) * (bottom - top),
    ]);
  }
}

function line(context, entries, name, ink, place) {
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.beginPath();
  let before = null;
  for (const entry of entries) {
    const [x, y] = place(entry);
    if (before && entry.time_ms - before.time_ms < 3500) {
      context.lineTo(x, y);
    } else {
      context.moveTo(x - 1, y); // a point of its own must be seen too
      context.lineTo(x, y);
    }
    before = entry;
  }
  context.stroke();
  context.lineWidth = 1;
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
