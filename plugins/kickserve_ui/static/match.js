// The match page: a coach records a match with it at the touchline, with a connection or without.
//
// The match and all that is recorded of it live in the browser (queue.js). The answer to a spot is read from maps that
// the browser keeps; the service's own answer, which may know the kicker, replaces it where it can be reached.

import { createApp } from "vue";
import { ChoiceField, NumberField, SliderField } from "./controls.js";
import { coloursOf, contour, decodeAll, levelLines, refine, sample } from "./heat.js";
import { Pitch } from "./pitch.js";
import { deliver, entries, forget, isWaiting, load, onOthers, save, write } from "./queue.js";
import { Decision } from "./reasons.js";
import { decide, gains, kickAt, phaseOf, spotOf, teeSpot, teeZone, WIDTH } from "./rugby.js";
import { isAttempt, pointsOf, scoreOf } from "./score.js";
import { boot, placeOf, queryOf, send, w } from "./service.js";
import { Timeline } from "./timeline.js";

const REST = 150; // milliseconds without a change until the service is asked
const LOOK = 4000; // milliseconds between looks whether the service is there, and what model it has
const PATIENCE = 10000; // milliseconds for an answer
const MAPS_PATIENCE = 60000; // for all maps of a match: 37,000 kicks for the model
const HALF = 40; // minutes
const FINER = 4; // spots between those of the maps, which have one every two metres
const FRONT = 2; // degrees up to which a kick is in front of the posts
const MAPS = `kickserve maps ${boot.root}`; // in the browser's cache
const ADVICE = { goal: "match_goal", corner: "match_corner_better", close: "match_close", outside: "match_outside" };
const KICK = ["distance", "angle", "side", "minute", "wind", "rain", "foot", "venue", "attempts", "kicker"];
const VALUES = Object.fromEntries(["lineout_5", "lineout_22", "lineout_40", "lineout_50", "miss", "touch"].map((name) => [name, boot.defaults[name]]));

const newMatch = () => ({
  id: Date.now(),
  teams: [0, 1].map(() => ({ name: "", on: 0, kickers: [{ name: "", foot: "right" }] })),
  on: 0, // the team that kicks
  half: 1,
  clock: { seconds: 0, since: null }, // since: when it was started, in milliseconds, while it runs
  wind: boot.defaults.wind,
  rain: boot.defaults.rain,
  values: { ...VALUES },
  shot: { kind: "penalty", line: WIDTH / 2, back: boot.defaults.back, ...kickAt({}, { x: 20, out: 30 }) },
});

const Match = {
  components: { ChoiceField, Decision, NumberField, Pitch, SliderField, Timeline },
  template: `
  <h1 class="unseen">{{ t("title_match") }}</h1>
  <section class="scoreboard" :aria-label="t('match_score')">
    <button v-for="team in [0, 1]" class="team" :class="'team-' + team" :aria-pressed="match.on === team" @click="match.on = team">
      <span class="team-name">{{ names[team] }}</span> <b>{{ score[team] }}</b></button>
    <div class="clock">
      <button class="button" :aria-label="t(match.clock.since ? 'match_pause' : 'match_start')" @click="toggleClock"><span class="time">{{ time }}</span> <span aria-hidden="true">{{ match.clock.since ? "❚❚" : "▶" }}</span></button>
      <button v-if="match.half === 1 && minute >= 40" class="button" @click="beginHalf">{{ t("match_half_time") }}</button>
    </div>
  </section>
  <section class="setup">
    <ChoiceField name="kind" :label="t('kind')" :options="kinds" :value="match.shot.kind" @change="setKind"/>
    <form v-if="editing" class="names-form" @submit.prevent="keepNames">
      <label class="number-field">{{ t("match_team") }}<input v-model.trim="editing.team" type="text" maxlength="40" autocomplete="off" data-field="team"></label>
      <label class="number-field">{{ t("match_kicker_name") }}<input ref="kicker" v-model.trim="editing.name" type="text" maxlength="64" autocomplete="off" data-field="kicker-name"></label>
      <ChoiceField name="foot" :label="t('foot')" :options="feet" :value="editing.foot" @change="editing.foot = $event"/>
      <button class="button primary">{{ t("match_keep") }}</button>
    </form>
    <div v-else class="who">
      <select :aria-label="t('match_kicker')" data-field="kicker" :value="team.on" @change="team.on = Number($event.target.value)">
        <option v-for="(each, at) in team.kickers" :value="at">{{ each.name || t("match_unnamed") }}</option></select>
      <button class="button" :aria-label="t('match_edit')" :title="t('match_edit')" @click="edit(team.on)">✎</button>
      <button class="button" :aria-label="t('match_add')" :title="t('match_add')" @click="edit(team.kickers.length)">+</button>
      <button class="button try-button" @click="scoreTry('try')">{{ t("match_try") }}</button>
    </div>
  </section>
  <section class="card field">
    <Pitch :ball="spot" :distance="shot.distance" :spoken="spoken" :map="map" :colours="colours" :lines="[...lines, ...pays]" :tee="tee" :t="t" @place="placeBall" @try="placeTry"/>
  </section>
  <section class="card dock">
    <div class="call">
      <p class="place">{{ place }}</p><p class="number" :aria-busy="!answer">{{ chance }}</p>
      <p class="advice">{{ advice }}</p><p class="range">{{ range }}</p>
    </div>
    <div class="outcomes" role="group" :aria-label="t('result')">
      <button class="button good" @click="tell($event, true)">{{ t("scored") }}</button>
      <button class="button bad" @click="tell($event, false)">{{ t("missed") }}</button>
      <button v-if="shot.kind === 'penalty'" class="button" @click="tell($event, null)">{{ t("match_corner") }}</button>
      <button class="button undo" :disabled="!last" :title="last ? say(last) : ''" @click="undo">{{ t("undo") }}</button>
    </div>
    <p class="note" role="status">{{ note }}</p>
    <p v-if="waiting" class="warning">{{ kept }} <a v-if="!rights.record" :href="boot.root + '/sign-in?to=/match'">{{ t("sign_in") }}</a></p>
    <p v-else-if="offline" class="hint">{{ t("match_offline") }}</p>
  </section>
  <Timeline :entries="story" :names="names" :say="say" :w="w"/>
  <div class="more">
    <Decision v-if="shot.kind === 'penalty'" :kick="kick" :spot="spot" :answer="answer" :ranges="boot.ranges" :w="w" @change="setValue"/>
    <section class="card"><h2>{{ t("match_setting") }}</h2>
      <SliderField v-for="name in ['wind', 'rain']" :key="name" :name="name" :label="t(name)" :reading="readings[name]" :value="match[name]" :range="boot.ranges[name]" @change="match[name] = $event"/>
      <p class="hint">{{ t("wind_text") }} {{ assumed }}</p>
      <NumberField name="minute" :label="t('minute')" :value="minute" :range="[0, 120]" :w="w" @change="setMinute"/>
      <div class="foot"><button class="button" @click="scoreTry('penalty_try')">{{ t("match_penalty_try") }}</button>
        <button class="button" @click="beginMatch">{{ t("match_new") }}</button>
        <button v-if="prompt" class="button primary" @click="install">{{ t("match_install") }}</button></div>
      <p class="hint">{{ model }} {{ t(keeps ? "match_keeps" : "match_insecure") }}</p>
    </section>
  </div>`,
  data: () => ({
    boot, w,
    match: load("match") ?? newMatch(),
    all: entries(),
    now: Date.now(),
    maps: [],
    found: null, // the service's own answer, to the kick in `found.key`
    offline: false,
    trouble: "", // why the service does not take what waits
    rights: { record: true },
    note: "",
    editing: null, // name of the team, and of a kicker: place in the team, name and foot
    prompt: null, // with which the browser offers to install the app
    keeps: "serviceWorker" in navigator,
  }),
  created() {
    [this.colours, this.t] = [coloursOf(boot.stops), w.t];
  },
  computed: {
    team() {
      return this.match.teams[this.match.on];
    },
    names() {
      return this.match.teams.map(({ name }, at) => name || w.t(at ? "match_away" : "match_home"));
    },
    story() {
      return this.all.filter((each) => each.match === this.match.id && !each.gone);
    },
    last() {
      return this.story.at(-1);
    },
    score() {
      return [0, 1].map((team) => scoreOf(this.story, team));
    },
    waiting() {
      return this.all.filter(isWaiting).length;
    },
    kept() {
      const reason = this.rights.record ? (this.trouble ? "refused" : "offline") : "signed_out";
      return w.t(`match_kept_${reason}`, { count: this.waiting, why: this.trouble });
    },
    seconds() {
      const { seconds, since } = this.match.clock;
      return seconds + (since ? Math.max(this.now - since, 0) / 1000 : 0);
    },
    minute() {
      return Math.floor(this.seconds / 60);
    },
    time() {
      return `${this.minute}:${String(Math.floor(this.seconds % 60)).padStart(2, "0")}`;
    },
    shot() {
      return this.match.shot;
    },
    spot() {
      return spotOf(this.shot);
    },
    kick() {
      const { name, foot } = this.team.kickers[this.team.on];
      const before = this.story.some((each) => isAttempt(each) && each.team === this.match.on && each.kicker === name);
      return {
        ...this.match.values, ...this.shot, foot, kicker: name,
        minute: Math.min(this.minute, 80),
        wind: this.match.wind,
        rain: this.match.rain,
        venue: this.match.on ? "away" : "home",
        attempts: before ? "yes" : "no",
      };
    },
    query() {
      return queryOf(this.kick, KICK);
    },
    /** What the answer depends on that shows: from one minute to the next it hardly changes. */
    key() {
      return `${queryOf(this.kick, KICK.filter((name) => name !== "minute"))}&${phaseOf(this.kick)}`;
    },
    /** The map for the conditions, as the service gives it. */
    coarse() {
      const { venue, foot, attempts, minute } = this.kick;
      const fits = ({ conditions }) => conditions.venue === venue && conditions.foot === foot && conditions.attempts === attempts && phaseOf(conditions) === phaseOf({ minute });
      const [one, other] = this.maps.filter(fits);
      return other && Math.abs(other.conditions.minute - minute) < Math.abs(one.conditions.minute - minute) ? other : one;
    },
    map() {
      return this.coarse && refine(this.coarse, FINER);
    },
    answer() {
      if (this.shot.kind === "drop") return null;
      return this.found?.key === this.key ? this.found : this.map ? sample(this.map, this.spot.x, this.spot.out) : null;
    },
    chance() {
      if (this.shot.kind === "drop") return "";
      return this.answer ? w.percent(this.answer.probability) : "…";
    },
    place() {
      const side = this.shot.angle < FRONT ? w.t("match_front") : w.t(`match_${this.shot.side}`);
      const named = w.t("match_kick", { kind: this.kinds[this.shot.kind], metres: w.number(this.shot.distance), side });
      return this.chance ? w.t("match_call", { kick: named }) : named;
    },
    range() {
      const [low, high] = (this.answer?.interval ?? []).map(w.percent);
      return low ? w.t("match_range", { low, high }) : "";
    },
    advice() {
      if (this.shot.kind === "drop") return w.t("match_drop_text");
      if (!this.answer) return w.t("match_no_map");
      const { goal, corner, advice } = this.decision;
      const worth = () => w.t("match_worth", { posts: w.number(goal, 1), corner: w.number(corner, 1), advice: w.t(ADVICE[advice]) });
      const said = this.shot.kind === "penalty" ? worth() : w.t(this.answer.warned ? "outside_here" : "match_tee", { from: w.number(this.tee.from), to: w.number(this.tee.to) });
      return this.elsewhere ? `${said} · ${this.elsewhere}` : said;
    },
    decision() {
      return decide(this.spot, this.answer, this.kick);
    },
    /** What the kept maps are for, where the weather is another by now. */
    elsewhere() {
      const { wind, rain } = this.coarse?.conditions ?? this.match;
      if (this.answer === this.found || (wind === this.match.wind && rain === this.match.rain)) return "";
      return w.t("match_other", { wind: w.number(wind), rain: w.percent(rain / 100) });
    },
    spoken() {
      return `${this.place} ${this.chance}`;
    },
    lines() {
      return this.map ? levelLines(this.map, w.percent) : [];
    },
    pays() {
      return this.map && this.shot.kind === "penalty" ? [{ name: "pays", ...contour(this.map, gains(this.map, this.match.values), 0) }] : [];
    },
    tee() {
      if (this.shot.kind !== "conversion") return null;
      const { line } = this.shot;
      const [from, to] = teeZone(boot.usual, line);
      const aside = w.number(Math.abs(line - WIDTH / 2));
      return { line, from, to, text: w.t(`try_${line < WIDTH / 2 ? "left" : "right"}`, { aside }) };
    },
    kinds: () => ({ penalty: w.t("kind_penalty"), conversion: w.t("kind_conversion"), drop: w.t("match_drop") }),
    feet: () => ({ right: w.t("foot_right"), left: w.t("foot_left") }),
    readings() {
      return { wind: w.t("wind_value", { value: w.number(this.match.wind) }), rain: w.percent(this.match.rain / 100) };
    },
    weather() {
      return `wind=${this.match.wind}&rain=${this.match.rain}`;
    },
    about() {
      return this.maps[0] ?? boot.model;
    },
    model() {
      return `${w.t("model")}: ${this.about.model}${this.about.simulated ? ` · ${w.t("simulated")}` : ""}.`;
    },
    assumed() {
      const names = this.about.assumed.map((each) => w.t(`feature_${each}`)).join(", ");
      return names && w.t("assumed_inputs", { what: names });
    },
  },
  watch: {
    match: { deep: true, handler: "keepMatch" },
    weather: "weatherChanged",
    query: "rest",
  },
  mounted() {
    this.keepMatch();
    forget(this.match.id);
    this.loadMaps().then(() => this.look());
    this.rest();
    setInterval(() => (this.now = Date.now()), 500);
    setInterval(() => document.hidden || this.look(), LOOK);
    for (const event of ["online", "offline"]) addEventListener(event, () => this.look());
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
    onOthers(() => {
      this.all = entries();
      const match = load("match");
      if (match && JSON.stringify(match) !== JSON.stringify(this.match)) this.match = match;
    });
    addEventListener("beforeinstallprompt", (event) => {
      event.preventDefault();
      this.prompt = event;
    });
    navigator.serviceWorker?.register(`${boot.root}/match-worker.js`, { scope: `${boot.root}/match` }).catch(() => (this.keeps = false));
  },
  methods: {
    // The match.
    keepMatch() {
      const text = JSON.stringify(this.match);
      if (text !== JSON.stringify(load("match"))) this.attempt(() => save("match", this.match));
    },
    setKind(kind) {
      const shot = { ...this.shot, kind };
      this.match.shot = kind === "conversion" ? this.onLine(shot, shot.line) : shot;
    },
    placeBall({ x, out }) {
      this.match.shot = { ...this.shot, ...kickAt(this.shot, { x: this.shot.kind === "conversion" ? this.shot.line : x, out }) };
    },
    placeTry(x) {
      this.match.shot = this.onLine(this.shot, x);
    },
    /** Put the ball of a conversion where kickers tee it, on the line through the try. */
    onLine(shot, x) {
      return { ...shot, ...kickAt(shot, teeSpot(boot.usual, x)) };
    },
    setValue(values) {
      Object.assign(this.match.values, values);
    },
    toggleClock() {
      this.now = Date.now();
      this.match.clock = { seconds: this.seconds, since: this.match.clock.since ? null : this.now };
    },
    setMinute(minute) {
      this.now = Date.now();
      this.match.clock = { seconds: 60 * minute, since: this.match.clock.since && this.now };
    },
    beginHalf() {
      [this.match.half, this.match.clock] = [2, { seconds: 60 * HALF, since: null }];
    },
    beginMatch() {
      if (!confirm(w.t("match_new_sure"))) return;
      const { teams, wind, rain, values } = this.match;
      this.match = { ...newMatch(), teams, wind, rain, values };
      forget(this.match.id);
      [this.all, this.note] = [entries(), ""];
    },
    edit(at) {
      this.editing = { name: "", foot: "right", ...this.team.kickers[at], at, team: this.team.name };
      this.$nextTick(() => this.$refs.kicker.focus());
    },
    keepNames() {
      const { at, name, foot, team } = this.editing;
      this.team.kickers[at] = { name, foot };
      this.team.name = team;
      [this.team.on, this.editing] = [at, null];
    },

    // What is recorded.
    tell(event, outcome) {
      if (event.detail > 1) return; // the second of a double tap
      const what = outcome === null ? "corner" : this.shot.kind;
      this.record({ what, outcome, probability: this.answer?.probability ?? null });
      if (what === "conversion") this.setKind("penalty");
    },
    scoreTry(what) {
      this.record({ what, outcome: true });
      if (what !== "try") return;
      this.setKind("conversion");
      this.note += `. ${w.t("match_ground")}`;
    },
    record(more) {
      const { shot, query, kick, minute, match } = this;
      const entry = { match: match.id, team: match.on, kicker: kick.kicker, minute, shot: { ...shot }, query, gone: false, ...more };
      if (!this.attempt(() => write(entry))) return;
      this.all = entries();
      const points = pointsOf(entry);
      this.note = points ? w.t("match_told", { what: this.say(entry), points }) : this.say(entry);
      this.deliver();
    },
    undo() {
      const entry = this.last;
      if (!this.attempt(() => write({ ...entry, gone: true }))) return;
      this.all = entries();
      this.match.on = entry.team;
      this.match.shot = entry.shot;
      this.note = w.t("undone", { what: this.say(entry) });
      this.deliver();
    },
    /** Do what writes into the browser's storage; say so where that is full. */
    attempt(action) {
      try {
        action();
        return true;
      } catch (error) {
        this.note = w.t("match_full", { why: error.message });
      }
    },
    say({ what, team, kicker, outcome, shot }) {
      const kicked = isAttempt({ what }) || what === "drop";
      const who = (kicked && kicker) || this.names[team];
      const place = isAttempt({ what }) || what === "corner" ? placeOf(shot) : "";
      const result = kicked ? w.t(outcome ? "scored" : "missed") : "";
      return [w.t(`match_what_${what}`), who, place, result].filter(Boolean).join(", ");
    },
    async deliver() {
      try {
        await deliver(this.rights);
        this.trouble = "";
      } catch (error) {
        this.offline = !error.answered;
        if (error.status === 401 || error.status === 403) this.rights = { record: false };
        else this.trouble = error.answered ? error.message : "";
      }
      forget(this.match.id);
      this.all = entries();
    },

    // What the service is asked.
    /** Look whether the service is there, what model it has, and what the visitor may do; send what waits. */
    async look() {
      if (this.looking) return;
      this.looking = true;
      await this.lookOnce();
      this.looking = false;
    },
    async lookOnce() {
      const status = await this.ask(async (signal) => (await send("/status", { signal })).json());
      if (!status) return;
      this.rights = status.rights;
      if (this.waiting && this.rights.record) this.deliver();
      if (this.maps[0]?.revision === status.revision && !this.elsewhere) return;
      this.found = null;
      await this.loadMaps();
      this.rest();
    },
    weatherChanged() {
      clearTimeout(this.blowing);
      this.blowing = setTimeout(() => this.loadMaps(), 2 * REST);
    },
    /** Load the maps, and keep them; without the service take those that were kept. */
    async loadMaps() {
      const path = `/maps?${this.weather}`;
      const cache = await globalThis.caches?.open(MAPS).catch(() => null); // there with https alone
      const loaded = await this.ask(async (signal) => {
        const response = await send(path, { signal });
        await cache?.put("maps", response.clone());
        return response;
      }, MAPS_PATIENCE);
      const response = loaded ?? (this.maps.length ? null : await cache?.match("maps"));
      if (response) this.maps = decodeAll(await response.arrayBuffer()).map(Object.freeze);
    },
    rest() {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.shot.kind === "drop" || this.loadAnswer(), REST);
    },
    async loadAnswer() {
      const { key, query } = this;
      const found = await this.ask(async (signal) => (await send(`/answer?${query}`, { signal })).json());
      if (found && key === this.key) this.found = { ...found, key };
    },
    /** Ask, and note whether the service was there; undefined where it had no answer. */
    async ask(request, patience = PATIENCE) {
      try {
        if (!navigator.onLine) throw new TypeError("offline");
        const found = await request(AbortSignal.timeout(patience));
        this.offline = false;
        return found;
      } catch (error) {
        this.offline = !error.answered;
      }
    },
    async install() {
      await this.prompt.prompt();
      this.prompt = null;
    },
  },
};

createApp(Match).mount("#board");
