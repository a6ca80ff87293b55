// The WebSocket to the monitor: connects again by itself, hands on what comes, and answers by number.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const ANSWER_MS = 5000;

export class Connection {
  // onMessage gets JSON objects, onPicture (header, histogram, jpeg, mask), onOnline true, or false and why, see why().
  constructor({ onMessage, onPicture, onOnline }) {
    Object.assign(this, { onMessage, onPicture, onOnline });
    this.waiting = new Map();
    this.nextId = 1;
    this.waitMs = FIRST_WAIT_MS;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket = socket;
    let opened = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      opened = true;
      this.waitMs = FIRST_WAIT_MS;
      this.onOnline(true);
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        this.take(JSON.parse(event.data));
      } else {
        this.onPicture(...unpackPicture(event.data));
      }
    };
    socket.onclose = async () => {
      for (const resolve of this.waiting.values()) {
        resolve({ ok: false, error: "the connection to the monitor was lost" });
      }
      this.waiting.clear();
      this.onOnline(false, opened ? null : await this.why());
      setTimeout(() => this.connect(), this.waitMs);
      this.waitMs = Math.min(LONGEST_WAIT_MS, this.waitMs * 2);
    };
  }

  // Why no WebSocket is opened, which the browser does not say: [title, text], null where nobody answers.
  async why() {
    try {
      const response = await fetch("/health", { signal: AbortSignal.timeout(ANSWER_MS) });
      const { full, error } = await response.json();
      if (response.status === 401) {
        return ["The token has changed", "open the address that isp-stream printed at its start"];
      }
      return full
        ? ["The monitor is full", "it serves no more pages at once; trying again"]
        : ["The monitor opens no WebSocket to this page", error ?? "a proxy must pass it on; trying again"];
    } catch {
      return null;
    }
  }

  take(message) {
    const resolve = message.type === "answer" && this.waiting.get(message.id);
    if (resolve) {
      this.waiting.delete(message.id);
      resolve(message);
    } else {
      this.onMessage(message);
    }
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
      return true;
    }
    return false;
  }

  // Sends a command; resolves to its answer, {ok, error?, ...}, and never fails.
  command(camera, cmd, values = {}) {
    const id = this.nextId++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      if (!this.send({ type: "command", id, camera, cmd, ...values })) {
        this.waiting.delete(id);
        resolve({ ok: false, error: "there is no connection to the monitor" });
      }
    });
  }
}

// [header, rest]: 4 bytes with the length of a JSON header, the header, and what follows.
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return [header, 4 + length];
}

function unpackPicture(buffer) {
  const [header, start] = unpack(buffer);
  const histogram = new Uint32Array(buffer.slice(start, start + 3072));
  const jpeg = new Blob([new Uint8Array(buffer, start + 3072, header.jpeg)], { type: "image/jpeg" });
  const mask = header.mask
    ? new Blob([new Uint8Array(buffer, start + 3072 + header.jpeg, header.mask)], { type: "image/png" })
    : null;
  return [header, histogram, jpeg, mask];
}
