// The pitch page: the kick that the visitor sets up, the answer to it, and what is recorded of it.
//
// Looking asks for maps and answers, which records nothing; the buttons of the answer record. The answer to a spot is
// read from the map at once, and the service's own answer, which may know more, replaces it.

import { createApp } from "vue";
import { Answer } from "./answer.js";
import { ChoiceField, NumberField, SliderField } from "./controls.js";
import { coloursOf, contour, decode, levelLines, sample } from "./heat.js";
import { Pitch } from "./pitch.js";
import { Decision, Drivers, TeeLine } from "./reasons.js";
import { clamp, DEPTH, gains, kickAt, LENGTH, phaseOf, spotOf, teeSpot, teeZone, WIDTH } from "./rugby.js";
import { boot, placeOf, queryOf, reasonOf, send, w } from "./service.js";
import { ShareKick, UseByApi } from "./share.js";

const REST = 150; // milliseconds without a change until the service is asked
const LOOK = 4000; // milliseconds between looks whether service, model and session are what they were
const CONDITIONS = ["minute", "phase", "wind", "rain", "foot", "venue", "attempts", "kicker"];
const SPOT = ["distance", "angle", "side"];
const VALUES = ["line", "back", "lineout_5", "lineout_22", "lineout_40", "lineout_50", "miss", "touch"];

/** Read a link: the kick it shows, and the names of its unusable values, which have the default. */
function read(search) {
  const [kick, unusable] = [{ ...boot.defaults, kind: "penalty" }, []];
  const query = new URLSearchParams(search);
  for (const [name, text] of query) {
    if (name in boot.ranges) {
      const [low, high] = boot.ranges[name];
      const value = text.trim() ? Number(text) : NaN;
      if (value >= low && value <= high) kick[name] = value;
      else unusable.push(name);
    } else if (name in boot.choices) {
      if (boot.choices[name].includes(text)) kick[name] = text;
      else unusable.push(name);
    } else if (name === "kicker") kick.kicker = text.trim().slice(0, 64);
  }
  if (kick.kind === "conversion" && !(query.has("line") && query.has("back"))) Object.assign(kick, onLine(kick));
  if (kick.kind === "conversion") Object.assign(kick, kickAt(kick, spotOf(kick)));
  return [kick, unusable];
}

/** Return the line and the place on it of a conversion that is given by distance and angle. */
function onLine(kick) {
  const { x, out } = spotOf({ ...kick, kind: "penalty" });
  return { line: Number(clamp(x, 0, WIDTH).toFixed(1)), back: Number(Math.max(out, 0).toFixed(1)) };
}

const Board = {
  components: { Answer, ChoiceField, Decision, Drivers, NumberField, Pitch, ShareKick, SliderField, TeeLine, UseByApi },
  template: `
  <h1 class="unseen">{{ t("title_pitch") }}</h1>
  <section class="card result">
    <Answer :answer="answerShown" :place="place" :warnings="warnings" :stale="!answer" :exact="!!found && answer === found" :record="mine" :may="rights.record"
      :busy="busy" :undoable="undoable" :note="status" :w="w" @record="store" @mark="mark" @undo="undo"/>
  </section>
  <section class="card field">
    <Pitch :ball="spot" :distance="kick.distance" :spoken="spoken" :map="map" :colours="colours" :lines="[...lines, ...pays]"
      :tee="tee" :stale="mapped !== conditions" :t="t" @place="placeBall" @try="placeTry"/>
    <div class="legend">
      <div class="scale" :style="{background: boot.gradient}"></div>
      <div class="ticks"><span v-for="level in 6">{{ w.percent((level - 1) / 5) }}</span></div>
      <p class="keys"><span v-if="pays.length" class="pays-key">{{ t("pays") }}</span>
        <span class="faded-key" :style="{'--scale': boot.gradient}">{{ t("faded") }}</span></p>
    </div>
    <div class="presets" role="group" :aria-label="t('presets')">
      <button v-for="(_, name) in boot.presets" class="button chip" @click="preset(name)">{{ t("preset_" + name) }}</button>
    </div>
    <div class="foot"><p class="hint">{{ t(kick.kind === "conversion" ? "hint_conversion" : "hint") }}</p>
      <div class="presets"><ShareKick :query="told" :spoken="spoken" :w="w"/><UseByApi :kick="found?.key === key ? found.kick : null" :w="w"/></div></div>
    <p class="hint">{{ model }}</p>
    <p v-if="unusable.length" class="warning" role="alert">{{ t("bad_link", { names: unusable.join(", ") }) }}</p>
  </section>
  <div class="settings">
    <section class="card kick"><h2>{{ t("kick") }}</h2>
      <ChoiceField name="kind" :label="t('kind')" :options="options.kind" :value="kick.kind" @change="change({ kind: $event })"/>
      <div v-if="kick.kind === 'conversion'" class="pair">
        <NumberField name="aside" :label="t('aside')" :value="Math.abs(kick.line - 35)" :range="[0, 35]" :w="w" @change="change({ aside: $event })"/>
        <NumberField name="back" :label="t('back')" :value="kick.back" :range="boot.ranges.back" :w="w" @change="change({ back: $event })"/>
      </div>
      <div v-else class="pair">
        <NumberField v-for="name in ['distance', 'angle']" :key="name" :name="name" :label="t(name)" :value="kick[name]"
          :range="boot.ranges[name]" :w="w" @change="change({ [name]: $event })"/>
      </div>
      <ChoiceField name="side" :label="t('side')" :options="options.side" :value="kick.side" @change="change({ side: $event })"/>
      <label class="number-field">{{ t("kicker") }}
        <input type="text" maxlength="64" autocomplete="off" data-field="kicker" :value="kick.kicker" @change="change({ kicker: $event.target.value.trim() })"></label>
    </section>
    <section class="card conditions"><h2>{{ t("conditions") }}</h2>
      <template v-for="name in ['wind', 'rain', 'minute']" :key="name">
        <SliderField :name="name" :label="t(name)" :reading="readings[name]" :value="kick[name]" :range="boot.ranges[name]" @change="change({ [name]: $event })"/>
        <p v-if="name === 'wind'" class="hint">{{ t("wind_text") }}</p>
      </template>
      <ChoiceField v-for="name in ['foot', 'venue', 'attempts']" :key="name" :name="name" :label="t(name)" :options="options[name]"
        :value="kick[name]" @change="change({ [name]: $event })"/>
      <p v-if="assumed.length" class="hint">{{ t("assumed_inputs", { what: assumed.map((each) => t("feature_" + each)).join(", ") }) }}</p>
    </section>
  </div>
  <div class="reasons">
    <Decision v-if="kick.kind === 'penalty'" :kick="kick" :spot="spot" :answer="answerShown" :ranges="boot.ranges" :w="w" @change="change"/>
    <TeeLine v-if="kick.kind === 'conversion'" :kick="kick" :answer="answerShown" :map="map" :usual="boot.usual" :w="w" @change="change"/>
    <Drivers :found="reasons" :w="w"/>
  </div>`,
  data() {
    const [kick, unusable] = read(location.search);
    return {
      boot, w, kick, unusable,
      map: null, // of the conditions in `mapped`
      mapped: "",
      found: null, // the service's own answer, to the kick in `found.key`
      reasons: null, // what drives the last kick that the service answered
      shown: null, // the last answer that belonged to its kick: it stays, greyed, until another comes
      offline: false,
      fault: "",
      record: null, // of this kick: its key, id and outcome
      steps: [], // that Undo takes back, the last first
      busy: false,
      note: "",
      rights: boot.rights,
    };
  },
  created() {
    [this.colours, this.t] = [coloursOf(boot.stops), w.t];
  },
  computed: {
    conditions() {
      return queryOf(this.kick, CONDITIONS);
    },
    key() {
      return queryOf(this.kick, [...SPOT, ...CONDITIONS]);
    },
    query() {
      return queryOf(this.kick, Object.keys(this.kick));
    },
    /** The query of a link for others: without figures of the decision that are the usual ones. */
    told() {
      return queryOf(this.kick, Object.keys(this.kick).filter((name) => !VALUES.includes(name) || this.kick[name] !== boot.defaults[name]));
    },
    spot() {
      return spotOf(this.kick);
    },
    answer() {
      if (this.found?.key === this.key) return this.found;
      return this.map && this.mapped === this.conditions ? sample(this.map, this.spot.x, this.spot.out) : null;
    },
    answerShown() {
      return this.answer ?? this.shown;
    },
    warnings() {
      const { x, out } = this.spot;
      const lines = [];
      if (this.answer?.warnings?.length) lines.push(w.t("outside", { what: this.answer.warnings.join(", ") }));
      else if (this.answer?.warned) lines.push(w.t("outside_here"));
      if (x < 0 || x > WIDTH || out > LENGTH) lines.push(w.t("off_pitch"));
      else if (out > DEPTH) lines.push(w.t("beyond_shown", { metres: w.number(out) }));
      if (this.fault) lines.push(this.fault);
      if (this.offline) lines.push(w.t("offline"));
      return lines;
    },
    place() {
      return `${this.kick.kind ? `${w.t(`kind_${this.kick.kind}`)} · ` : ""}${this.placeName}`;
    },
    placeName() {
      return placeOf(this.kick);
    },
    spoken() {
      return this.answer ? w.t("summary", { place: this.placeName, probability: w.percent(this.answer.probability), word: w.likelihood(this.answer.probability) }) : this.placeName;
    },
    lines() {
      return this.map ? levelLines(this.map, w.percent) : [];
    },
    pays() {
      if (!this.map || this.kick.kind !== "penalty") return [];
      return [{ name: "pays", ...contour(this.map, gains(this.map, this.kick), 0) }];
    },
    tee() {
      if (this.kick.kind !== "conversion") return null;
      const [from, to] = teeZone(boot.usual, this.kick.line);
      const aside = w.number(Math.abs(this.kick.line - WIDTH / 2));
      return { line: this.kick.line, from, to, text: w.t(`try_${this.kick.line < WIDTH / 2 ? "left" : "right"}`, { aside }) };
    },
    readings() {
      const phase = phaseOf(this.kick);
      const minute = w.t("minute_value", { value: w.number(this.kick.minute) });
      return {
        wind: w.t("wind_value", { value: w.number(this.kick.wind) }),
        rain: `${w.percent(this.kick.rain / 100)}`,
        minute: phase === "start" || phase === "end" ? `${minute} · ${w.t(`phase_${phase}`)}` : minute,
      };
    },
    mine() {
      return this.record?.key === this.key ? this.record : null;
    },
    undoable() {
      return this.steps.at(-1)?.label ?? "";
    },
    status() {
      if (this.note) return this.note;
      if (!this.rights.record) return w.t("not_stored_key");
      if (!this.mine) return w.t("looking");
      return this.mine.outcome === null ? w.t("recorded_open") : w.t("recorded_outcome", { outcome: w.t(this.mine.outcome ? "scored" : "missed") });
    },
    model() {
      const { model, simulated } = this.map ?? boot.model;
      return `${w.t("model")}: ${model}${simulated ? ` · ${w.t("simulated")}` : ""}`;
    },
    assumed() {
      return (this.map ?? boot.model).assumed;
    },
    options() {
      const named = (field) => Object.fromEntries(boot.choices[field].filter((each) => each !== "kick").map((each) => [each, w.t(`${field}_${each}`)]));
      return Object.fromEntries(["kind", "side", "foot", "venue", "attempts"].map((field) => [field, named(field)]));
    },
  },
  watch: {
    conditions: "conditionsChanged",
    key() {
      this.note = "";
    },
    query: "rest",
    answer: {
      immediate: true,
      handler(answer) {
        if (answer) this.shown = answer;
      },
    },
  },
  mounted() {
    this.loadMap();
    this.rest();
    setInterval(() => document.hidden || this.look(), LOOK);
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  },
  methods: {
    // What the visitor sets.
    change(values) {
      const kick = { ...this.kick, ...values };
      if ("minute" in values) kick.phase = "";
      if (values.kind === "conversion") Object.assign(kick, onLine(this.kick));
      if ("aside" in values) kick.line = WIDTH / 2 + (kick.side === "left" ? -values.aside : values.aside);
      if (values.side && kick.kind === "conversion") kick.line = WIDTH - kick.line;
      delete kick.aside;
      if (kick.kind === "conversion") Object.assign(kick, kickAt(kick, { x: kick.line, out: kick.back }));
      this.kick = kick;
    },
    preset(name) {
      const kick = { ...this.kick, ...boot.presets[name], phase: "" };
      if (kick.kind === "conversion") Object.assign(kick, onLine(kick));
      this.kick = kick;
    },
    placeBall({ x, out }) {
      this.kick = { ...this.kick, ...kickAt(this.kick, { x: this.kick.kind === "conversion" ? this.kick.line : x, out }) };
    },
    placeTry(x) {
      this.kick = { ...this.kick, ...kickAt(this.kick, teeSpot(boot.usual, x)) };
    },

    // What the service is asked.
    conditionsChanged() {
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.loadMap(), REST / 2);
    },
    async loadMap() {
      const wanted = this.conditions;
      const found = await this.ask(async () => decode(await (await send(`/map?${wanted}`)).arrayBuffer()));
      if (found && wanted === this.conditions) [this.map, this.mapped] = [Object.freeze(found), wanted];
    },
    rest() {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => {
        history.replaceState(null, "", `?${this.query}`);
        this.loadAnswer();
      }, REST);
    },
    async loadAnswer() {
      const key = this.key;
      const found = await this.ask(async () => (await send(`/answer?${key}`)).json());
      if (!found || key !== this.key) return;
      [this.found, this.reasons] = [{ ...found, key }, found.reasons];
    },
    /** Ask, and note whether the service was there; undefined where it had no answer. */
    async ask(request) {
      try {
        const found = await request();
        [this.offline, this.fault] = [false, ""];
        return found;
      } catch (error) {
        if (error.answered) this.fault = w.t("failed", { why: error.message });
        else this.offline = true;
      }
    },
    async look() {
      const before = this.offline;
      const status = await this.ask(async () => (await send("/status")).json());
      if (!status) return;
      if (this.rights.signed_in && !status.rights.signed_in) location.reload();
      this.rights = status.rights;
      if (this.map?.revision !== status.revision || this.mapped !== this.conditions || before) {
        if (this.map?.revision !== status.revision) this.found = null;
        await this.loadMap();
        await this.loadAnswer();
      }
    },

    // What is recorded.
    async store() {
      await this.act(() => this.storeKick());
    },
    async storeKick() {
      const key = this.key;
      const label = this.place;
      const found = await (await send("/record", { method: "POST", body: { query: key } })).json();
      this.found = { ...found, key };
      this.record = { key, id: found.id, outcome: null, label };
      if (this.rights.delete) this.steps.push({ record: this.record, label });
    },
    async mark(success) {
      await this.act(async () => {
        if (!this.mine) await this.storeKick();
        const record = this.record;
        if (record.outcome === success) return;
        const before = record.outcome;
        await this.setOutcome(record, success);
        this.steps.push({ record, before, label: `${record.label}: ${w.t(success ? "scored" : "missed")}` });
      });
    },
    async undo() {
      await this.act(async () => {
        const { record, before, label } = this.steps.at(-1);
        if (before !== undefined) await this.setOutcome(record, before);
        else await send(`/record/${record.id}`, { method: "DELETE" });
        this.steps.pop();
        if (before === undefined && this.record?.id === record.id) this.record = null;
        this.note = w.t("undone", { what: label });
      });
    },
    async setOutcome(record, success) {
      await send(`/record/${record.id}`, { method: "PUT", body: { success } });
      record.outcome = success;
      if (this.record?.id === record.id) this.record = { ...record };
    },
    async act(action) {
      if (this.busy) return;
      [this.busy, this.note] = [true, ""];
      try {
        await action();
      } catch (error) {
        this.note = reasonOf(error);
      }
      this.busy = false;
    },
  },
};

createApp(Board).mount("#board");
