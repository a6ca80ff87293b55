// The settings form: what the camera and the engine are set to, and changing it.

import { number } from "./picture.js";

const SAID_MS = 6000;
const NAMES = { ExposureTime: "Exposure", Gain: "Gain", AcquisitionFrameRate: "Frame rate" };
const UNITS = { us: "µs", "": "" };

export class Settings {
  constructor(connection, root) {
    Object.assign(this, { connection, root, camera: null, rows: new Map(), engines: [], features: [] });
    this.turn = 0; // counts choices: an answer to a question from before the last one is not shown
  }

  // Builds the form anew: the monitor has said what there is.
  begin(features, engines) {
    this.features = features;
    this.engines = engines;
    this.root.replaceChildren();
    this.rows.clear();
    features.forEach((name) => this.addFeature(name));
    this.addWhiteBalance();
    this.addEngine();
  }

  choose(camera) {
    this.camera = camera;
    this.turn += 1;
    this.lastGains = null;
    for (const row of this.rows.values()) {
      row.dirty = row.button.disabled = false;
      hint(row, "");
      this.clear(row);
    }
    this.refresh();
  }

  // What a row shows was another camera's.
  clear(row) {
    if (row.input) {
      row.input.value = row.input.title = row.range = "";
    } else if (row.gains) {
      row.mode.value = "auto";
      row.triple.hidden = true;
      row.gains.forEach((input) => (input.value = "1"));
    } else {
      row.select.replaceChildren(...this.engines.map((name) => new Option(name)));
      row.select.selectedIndex = -1;
    }
  }

  // Asks the camera what it is set to.
  async refresh() {
    const turn = this.turn;
    const answer = await this.connection.command(this.camera, "features");
    if (turn !== this.turn) {
      return;
    }
    document.getElementById("settings-said").textContent = answer.ok ? "" : answer.error;
    if (!answer.ok) {
      return;
    }
    for (const feature of answer.features) {
      this.showFeature(feature);
    }
  }

  showFeature(feature) {
    const row = this.rows.get(feature.name);
    if (!row) {
      return;
    }
    row.input.disabled = row.button.disabled = !feature.writable;
    row.unit.textContent = UNITS[feature.unit] ?? feature.unit ?? "";
    if (feature.value !== undefined && !row.dirty && document.activeElement !== row.input) {
      row.input.value = number(feature.value);
    }
    if (feature.min !== undefined) {
      row.range = `${number(feature.min)} to ${number(feature.max)}`;
      row.input.title = row.range;
    }
    if (!feature.writable) {
      hint(row, feature.value === undefined ? "this camera has it not" : "it cannot be set now");
    }
  }

  addRow(name, label) {
    const form = document.createElement("form");
    form.className = "setting";
    form.noValidate = true;
    const title = document.createElement("label");
    title.textContent = label;
    const button = document.createElement("button");
    button.textContent = "Set";
    const said = document.createElement("span");
    said.className = "hint";
    said.setAttribute("role", "status");
    const row = { form, title, button, said, name, dirty: false, timer: 0 };
    form.dataset.setting = name;
    this.rows.set(name, row);
    return row;
  }

  addFeature(name) {
    const row = this.addRow(name, NAMES[name] ?? name);
    row.input = document.createElement("input");
    Object.assign(row.input, { id: `set-${name}`, inputMode: "decimal", autocomplete: "off" });
    row.title.htmlFor = row.input.id;
    row.unit = document.createElement("span");
    row.unit.className = "unit";
    const pair = document.createElement("span");
    pair.className = "pair";
    pair.append(row.input, row.unit);
    row.input.oninput = () => (row.dirty = true);
    row.input.onfocus = () => row.range && !row.said.classList.contains("bad") && hint(row, row.range);
    row.form.append(row.title, pair, row.button, row.said);
    row.form.onsubmit = (event) => {
      event.preventDefault();
      const value = Number(row.input.value.replace(",", "."));
      if (row.input.value.trim() === "" || !Number.isFinite(value)) {
        hint(row, "write a number", "bad");
        return;
      }
      this.set(row, value);
    };
    this.root.append(row.form);
  }

  async set(row, value) {
    const answer = await this.ask(row, "set", { feature: row.name, value });
    if (answer?.ok) {
      row.dirty = false;
      if (answer.value !== undefined) {
        row.input.value = number(answer.value);
      }
    }
  }

  addWhiteBalance() {
    const row = this.addRow("white_balance", "White balance");
    row.mode = document.createElement("select");
    row.mode.id = "set-white_balance";
    row.title.htmlFor = row.mode.id;
    row.mode.append(new Option("automatic", "auto"), new Option("gains", "gains"));
    row.gains = ["red", "green", "blue"].map((name) => {
      const input = document.createElement("input");
      Object.assign(input, { inputMode: "decimal", autocomplete: "off", value: "1" });
      input.setAttribute("aria-label", `gain of ${name}`);
      return input;
    });
    const inside = document.createElement("span");
    inside.style.display = "grid";
    inside.style.gap = "4px";
    const triple = (row.triple = document.createElement("span"));
    triple.className = "triple";
    triple.append(...row.gains);
    triple.hidden = true;
    inside.append(row.mode, triple);
    row.mode.onchange = () => {
      triple.hidden = row.mode.value !== "gains";
      if (!triple.hidden && this.lastGains) {
        row.gains.forEach((input, index) => (input.value = this.lastGains[index].toFixed(3)));
      }
    };
    row.form.append(row.title, inside, row.button, row.said);
    row.form.onsubmit = (event) => {
      event.preventDefault();
      const gains = row.gains.map((input) => Number(input.value.replace(",", ".")));
      if (row.mode.value === "gains" && !gains.every((gain) => gain > 0)) {
        hint(row, "write three gains above 0", "bad");
        return;
      }
      this.ask(row, "engine", { white_balance: row.mode.value === "gains" ? gains : "auto" });
    };
    this.root.append(row.form);
  }

  // The gains that the newest frame was developed with.
  showGains(gains) {
    this.lastGains = gains;
    const row = this.rows.get("white_balance");
    if (row && !row.timer && !row.said.classList.contains("bad")) {
      hint(row, `now ${gains.map((gain) => gain.toFixed(2)).join(" · ")}`);
    }
  }

  addEngine() {
    const row = this.addRow("engine", "Engine");
    row.select = document.createElement("select");
    row.select.id = "set-engine";
    row.title.htmlFor = row.select.id;
    row.select.onchange = () => (row.dirty = true);
    row.form.append(row.title, row.select, row.button, row.said);
    row.form.onsubmit = async (event) => {
      event.preventDefault();
      const answer = await this.ask(row, "engine", { engine: row.select.value });
      row.dirty = row.dirty && !answer?.ok;
    };
    this.root.append(row.form);
  }

  // The engine that develops now.
  showEngine(name) {
    const row = this.rows.get("engine");
    if (!row || !name || row.dirty) {
      return;
    }
    if (![...row.select.options].some((option) => option.value === name)) {
      row.select.append(new Option(name));
    }
    row.select.value = name;
  }

  // The answer; null where another camera was chosen meanwhile.
  async ask(row, cmd, values) {
    row.button.disabled = true;
    hint(row, "…");
    const turn = this.turn;
    const answer = await this.connection.command(this.camera, cmd, values);
    if (turn !== this.turn) {
      return null;
    }
    row.button.disabled = false;
    hint(row, answer.ok ? "done" : answer.error, answer.ok ? "good" : "bad");
    if (answer.ok) {
      row.timer = setTimeout(() => hint(row, ""), SAID_MS);
      this.refresh(); // ranges depend on each other
    }
    return answer;
  }
}

function hint(row, text, kind = "") {
  clearTimeout(row.timer);
  row.timer = 0;
  row.said.textContent = text;
  row.said.className = `hint ${kind}`;
}
