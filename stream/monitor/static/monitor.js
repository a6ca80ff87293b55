// The page: what each camera says, and the buttons.

import { drawLatency } from "./charts.js";
import { Connection } from "./connection.js";
import { Picture, say } from "./picture.js";
import { Settings } from "./settings.js";

const $ = (id) => document.getElementById(id);
const HISTORY_MS = 125000;
const MESSAGES = 100;
const STAGES = { camera: "camera", grab: "grab", develop: "develop", publish: "publish" };
const LOSSES = {
  camera_gap: "never came",
  incomplete: "incomplete",
  no_free_buffer: "no free buffer",
  superseded: "superseded",
  engine_error: "engine error",
  stage_died: "stage died",
  stopped: "stopped",
};
const STATES = { offline: "no connection", live: "live", idle: "waits for trigger", gone: "camera gone", stuck: "stuck", ended: "ended", starting: "starting" };

const FAULTS = ["gone", "stuck", "ended"]; // states of one camera that are told beside its name

const cameras = new Map(); // index -> {camera, history, messages, started, state, status, ...}
let chosen = null;
let online = false;
let offline = null; // why, as [title, text], where that is known
let recording = false;

if (location.search) {
  history.replaceState(null, "", location.pathname); // the token is in a cookie now
}
const connection = new Connection({ onMessage, onPicture, onOnline });
const picture = new Picture(connection);
const settings = new Settings(connection, $("settings"));

// -- what comes -------------------------------------------------------------------------------------------------

function onMessage(message) {
  const camera = cameras.get(message.camera);
  if (message.type === "hello") {
    begin(message);
  } else if (message.type === "camera") {
    const back = camera.state !== "live" && message.state === "live";
    Object.assign(camera, message);
    showCamera(camera);
    labelTabs();
    if (back && message.camera === chosen) {
      settings.refresh();
    }
  } else if (message.type === "history") {
    const newest = message.entries.length ? message.entries[message.entries.length - 1].time_ms : 0;
    camera.history = [...camera.history, ...message.entries].filter((entry) => newest - entry.time_ms < HISTORY_MS);
    showLatency();
  } else if (message.type === "messages") {
    camera.messages = [...camera.messages, ...message.entries].slice(-MESSAGES);
    showMessages();
  } else if (message.type === "started") {
    camera.started = message.started;
    showCamera(camera);
    if (message.camera === chosen && message.started) {
      settings.refresh();
    }
  } else if (message.type === "refused") {
    say(message.error, true);
  }
}

function onPicture(header, histogram, jpeg, mask) {
  if (header.camera === chosen) {
    settings.showGains(header.white_balance);
  }
  picture.show(header, histogram, jpeg, mask);
}

function onOnline(now, why = null) {
  online = now;
  offline = why;
  if (!now) {
    showState();
  }
}

function begin(hello) {
  cameras.clear();
  for (const index of hello.cameras) {
    cameras.set(index, { camera: index, history: [], messages: [], started: null, state: "starting", status: null, recording: {} });
  }
  picture.fps = hello.fps;
  settings.begin(hello.features, hello.engines);
  document.body.dataset.version = hello.version;
  const wanted = Number(location.hash.slice(1));
  choose(cameras.has(chosen) ? chosen : cameras.has(wanted) ? wanted : hello.cameras[0]);
}

function choose(index) {
  chosen = index;
  $("cameras").replaceChildren(...(cameras.size > 1 ? [...cameras.keys()].map(tab) : []));
  labelTabs();
  picture.choose(index);
  settings.choose(index);
  showCamera(cameras.get(index));
  showLatency();
  showMessages();
}

function tab(index) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.camera = index;
  button.setAttribute("aria-pressed", String(index === chosen));
  button.onclick = () => {
    history.replaceState(null, "", `#${index}`);
    choose(index);
  };
  return button;
}

// Of several cameras, those at fault say so in their tab, for another one may be looked at.
function labelTabs() {
  for (const button of $("cameras").children) {
    const { state } = cameras.get(Number(button.dataset.camera));
    const bad = FAULTS.includes(state);
    button.dataset.bad = String(bad);
    setText(button, `camera ${button.dataset.camera}${bad ? ` ${state}` : ""}`);
  }
}

// -- what is shown ----------------------------------------------------------------------------------------------

function showCamera(camera) {
  if (!camera || camera.camera !== chosen) {
    return;
  }
  const geometry = camera.started?.geometry;
  $("what").textContent = geometry
    ? `${geometry.vendor} ${geometry.model} ${geometry.serial} · ${geometry.width}×${geometry.height} ${geometry.pixel_format}`
    : "";
  settings.showEngine(camera.status?.engine || camera.started?.engine?.name);
  showState();
  showRecording(camera.recording);
  const beside = camera.stuck_beside ?? [];
  $("beside").hidden = !beside.length;
  setText($("beside"), beside.length ? `${beside.join(" and ")} stuck` : "");
  showStages(camera);
  showAccount(camera.status?.account);
}

function showState() {
  const camera = cameras.get(chosen);
  const state = online ? camera?.state ?? "starting" : "offline";
  document.body.dataset.state = state;
  const several = cameras.size > 1 && online;
  const named = several && FAULTS.includes(state) ? `camera ${chosen} ${state}` : STATES[state] ?? state;
  document.title = state === "live" ? "ispeed monitor" : `${named} – ispeed monitor`;
  $("state").textContent = STATES[state] ?? state;
  const since = camera?.since_ms ? ` since ${clock(camera.since_ms)}` : "";
  const of = several ? ` of camera ${chosen}` : "";
  const banners = {
    offline: ["bad", ...(offline ?? ["No connection to the monitor", "trying again"])],
    gone: ["bad", `Camera ${several ? `${chosen} ` : ""}gone${since}`, `${camera?.text || "no frame comes from it"}; it is taken up again when it is back`],
    stuck: ["bad", camera?.stuck === "main" ? "isp-stream says nothing" : `The ${camera?.stuck} stage${of} is stuck`, "frames come and do not go on"],
    ended: ["bad", `The run${of} has ended`, ""],
    idle: ["idle", `${several ? `Camera ${chosen} waits` : "Waiting"} for a trigger`, "frames come when the camera is triggered"],
  };
  const [kind, title, text] = banners[state] ?? ["", "", ""];
  $("banner").hidden = !title || (state === "idle" && Boolean(picture.still));
  $("banner").dataset.kind = kind;
  setText($("banner-title"), title);
  setText($("banner-text"), text);
}

function setText(element, text) {
  if (element.textContent !== text) { // an alert that is written again is read aloud again
    element.textContent = text;
  }
}

function showStages(camera) {
  const { rates, bottleneck } = camera.status ?? {};
  if (!rates) { // nothing is known yet: what is shown was another camera's
    $("stages").replaceChildren();
    $("limit").textContent = "";
    return;
  }
  const full = Math.max(...Object.values(rates), 1e-9);
  $("stages").replaceChildren(...Object.entries(STAGES).flatMap(([name, label]) => {
    const share = rates[name] / full;
    const title = document.createElement("span");
    title.textContent = label;
    const track = document.createElement("div");
    track.className = "track";
    const fill = document.createElement("div");
    fill.className = `fill ${share < 0.97 ? "low" : ""}`;
    fill.style.width = `${100 * share}%`;
    track.append(fill);
    const rate = document.createElement("span");
    rate.className = "rate";
    rate.textContent = `${rates[name].toFixed(rates[name] < 100 ? 1 : 0)} Hz`;
    rate.dataset.stage = name;
    return [title, track, rate];
  }));
  $("limit").textContent = bottleneck ? `limit: ${bottleneck}` : "";
}

function showAccount(account) {
  if (!account) {
    $("account").tBodies[0].replaceChildren();
    $("balance").textContent = "";
    return;
  }
  const lost = Object.values(account.lost).reduce((sum, count) => sum + count, 0);
  const rows = [
    ["seen", account.seen],
    ["published", account.published],
    ["lost", lost, lost ? "bad" : ""],
    ...Object.entries(account.lost).filter(([, count]) => count).map(([reason, count]) => [`  ${LOSSES[reason] ?? reason}`, count, "part", reason]),
  ];
  $("account").tBodies[0].replaceChildren(...rows.map(([name, count, kind, reason]) => {
    const row = document.createElement("tr");
    const [title, value] = [document.createElement("td"), document.createElement("td")];
    title.textContent = kind === "part" ? `– ${name.trim()}` : name;
    value.textContent = count.toLocaleString("en-GB").replaceAll(",", " ");
    value.className = kind === "bad" ? "bad" : "";
    row.className = kind === "part" ? "none" : "";
    row.dataset.count = reason ?? name;
    row.append(title, value);
    return row;
  }));
  $("balance").textContent = account.in_flight ? `${account.in_flight} in flight` : "";
}

function showLatency() {
  const camera = cameras.get(chosen);
  if (!camera) {
    return;
  }
  const last = camera.history[camera.history.length - 1];
  drawLatency($("latency"), camera.history, last ? last.time_ms : 0);
  for (const name of ["p50", "p99"]) {
    $("latency-now").querySelector(`.${name}`).textContent = last?.p99 ? `${name} ${last[name].toFixed(2)} ms` : "";
  }
}

function showMessages() {
  const camera = cameras.get(chosen);
  $("messages").replaceChildren(...[...camera.messages].reverse().map((entry) => {
    const item = document.createElement("li");
    item.dataset.level = entry.level;
    const time = document.createElement("time");
    time.textContent = clock(entry.time_ms);
    item.append(time, entry.text);
    return item;
  }));
}

// {state: recording, armed, idle or over, and of a recording: reason, file, frames, bytes}; {} where nothing records.
function showRecording({ state, reason, file, frames, bytes }) {
  recording = state === "recording";
  const count = Math.max(0, ...Object.values(frames ?? {}));
  const size = bytes ? ` · ${count} frames · ${(bytes / 1e6).toFixed(0)} MB` : "";
  const texts = {
    recording: `recording${reason ? ` (${reason})` : ""}${size}`,
    armed: "armed: waits for a trigger",
    idle: "ready to record",
    over: "nothing is recorded any more",
  };
  $("recording").hidden = !state;
  $("recording").dataset.recording = state ?? "";
  setText($("recording"), texts[state] ?? state ?? "");
  $("recording").title = file ?? "";
  $("record").setAttribute("aria-pressed", String(recording));
  $("record").textContent = recording ? "Stop recording" : "Record";
  for (const id of ["record", "record-trigger"]) {
    $(id).classList.toggle("off", !state);
  }
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// -- what is asked ----------------------------------------------------------------------------------------------

async function act(button, cmd, values, done) {
  const camera = chosen;
  button.disabled = true;
  const answer = await connection.command(camera, cmd, values);
  button.disabled = false;
  const said = answer.ok ? done : answer.error;
  say(camera === chosen || !said ? said : `camera ${camera}: ${said}`, !answer.ok);
}

$("trigger").onclick = () => act($("trigger"), "trigger", {}, "the camera was triggered");
$("record").onclick = () => act($("record"), "record", { action: recording ? "stop" : "start" }, "");
$("record-trigger").onclick = () => act($("record-trigger"), "record", { action: "trigger" }, "recording was triggered");

document.addEventListener("keydown", (event) => {
  const on = (names) => event.target instanceof Element && event.target.closest(names);
  if (event.ctrlKey || event.altKey || event.metaKey || on("input, select, textarea")) {
    return;
  }
  if (event.key === " " && !event.repeat && !on("button")) {
    event.preventDefault();
    $("record-trigger").click();
  } else if (picture.key(event)) {
    event.preventDefault();
  }
});
window.addEventListener("resize", () => {
  showLatency();
});
