// The page that compares the current model with another one: a pitch split between them, and what came of kicks.

import { createApp } from "vue";
import { ChoiceField, SliderField } from "./controls.js";
import { coloursOf, contour, decode, draw, placeLabels, sample } from "./heat.js";
import { Pitch } from "./pitch.js";
import { clamp, DEPTH, kickAt, spotOf, WIDTH } from "./rugby.js";
import { boot, placeOf, send, w } from "./service.js";

const LEVELS = [-0.1, -0.05, -0.02, 0.02, 0.05, 0.1]; // of the difference
const CONDITIONS = ["wind", "rain", "minute"];
const REST = 150; // milliseconds without a change until the service is asked

// A pitch of two maps with a divider that is dragged: left of it the first map, right of it the second.
const SplitPitch = {
  components: { Pitch },
  template: `
  <div class="split" ref="box">
    <Pitch :ball="ball" :distance="distance" :spoken="spoken" :map="maps[0]" :colours="colours" :lines="lines" :stale="stale" :t="t" @place="$emit('place', $event)">
      <template #default="{ place }"><div class="second" :style="{ clipPath: 'inset(0 0 0 ' + at + '%)' }"><canvas ref="second" :style="place" aria-hidden="true"></canvas></div></template>
    </Pitch>
    <div class="divider" :style="{ left: at + '%' }" role="slider" tabindex="0" :aria-label="t('divider')" aria-valuemin="0" aria-valuemax="100" :aria-valuenow="at"
      :aria-valuetext="t('divider_value', { part: w.percent(at / 100) })"
      @keydown="step" @pointerdown="press" @pointermove="drag" @pointerup="held = false" @pointercancel="held = false"><i></i></div>
  </div>`,
  props: { ball: Object, distance: Number, spoken: String, maps: Array, colours: Array, lines: Array, stale: Boolean, w: Object },
  emits: ["place"],
  data: () => ({ at: 50, held: false }),
  created() {
    this.t = this.w.t;
  },
  mounted() {
    this.$watch("maps", (maps) => maps[1] && draw(this.$refs.second, maps[1], this.colours), { immediate: true });
  },
  methods: {
    press(event) {
      this.held = true;
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    drag(event) {
      const box = this.$refs.box.getBoundingClientRect();
      if (this.held) this.at = Math.round(clamp((100 * (event.clientX - box.left)) / box.width, 0, 100));
    },
    step(event) {
      const to = { ArrowLeft: this.at - 2, ArrowDown: this.at - 2, ArrowRight: this.at + 2, ArrowUp: this.at + 2, Home: 0, End: 100 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.at = clamp(to, 0, 100);
    },
  },
};

// Two reliability curves: for groups of kicks, how many went over against what was predicted, with 95 % intervals.
const Curves = {
  template: `
  <svg class="diagram" viewBox="0 0 364 352" role="img" :aria-label="w.t('reliability')">
    <rect class="frame" x="44" y="10" width="300" height="300"/>
    <path class="ideal" :d="'M' + x(0) + ' ' + y(0) + 'L' + x(1) + ' ' + y(1)"/>
    <template v-for="at in [0, 0.25, 0.5, 0.75, 1]" :key="at">
      <text :x="x(at)" y="326" text-anchor="middle">{{ w.percent(at) }}</text><text x="36" :y="y(at) + 4" text-anchor="end">{{ w.percent(at) }}</text>
    </template>
    <g v-for="(curve, which) in curves" :key="which" :class="'model-' + which">
      <polyline :points="curve.map((each) => x(each.predicted) + ',' + y(each.actual)).join(' ')"/>
      <g v-for="each in curve">
        <path class="bar" :d="'M' + (x(each.predicted) + 3 * which) + ' ' + y(each.interval[0]) + 'V' + y(each.interval[1])"/>
        <circle v-if="which === 0" :cx="x(each.predicted)" :cy="y(each.actual)" r="4.5"><title>{{ told(each) }}</title></circle>
        <rect v-else :x="x(each.predicted) - 1.5" :y="y(each.actual) - 4.5" width="9" height="9"><title>{{ told(each) }}</title></rect>
      </g>
    </g>
    <text :x="x(0.5)" y="346" text-anchor="middle">{{ w.t("predicted") }}</text>
    <text :transform="'translate(11 ' + y(0.5) + ') rotate(-90)'" text-anchor="middle">{{ w.t("happened") }}</text>
  </svg>`,
  props: { curves: Array, w: Object },
  methods: {
    x: (part) => 44 + 300 * part,
    y: (part) => 10 + 300 * (1 - part),
    told({ predicted, actual, count }) {
      return `${this.w.percent(predicted)} → ${this.w.percent(actual)} (${this.w.number(count)})`;
    },
  },
};

const Comparison = {
  components: { ChoiceField, Curves, SliderField, SplitPitch },
  template: `
  <h1>{{ t("title_compare") }}</h1>
  <p v-if="!other" class="card">{{ t("compare_nothing") }}</p>
  <div v-else class="columns">
    <section class="card"><h2>{{ t("compare_map") }}</h2>
      <ChoiceField v-if="Object.keys(names).length > 1" name="other" :label="t('compare_with')" :options="names" :value="other" @change="choose"/>
      <p class="sides"><span>◀ {{ t("compare_current") }} · {{ boot.model.model }} <b v-if="answers">{{ w.percent(answers[0]) }}</b></span>
        <span><b v-if="answers">{{ w.percent(answers[1]) }}</b> {{ names[other] }} · {{ boot.others[other].model }} ▶</span></p>
      <SplitPitch :ball="spot" :distance="kick.distance" :spoken="spoken" :maps="maps" :colours="colours" :lines="lines" :stale="stale" :w="w" @place="place"/>
      <p class="hint">{{ t("compare_contours") }}</p>
      <p v-if="fault" class="warning" role="alert">{{ fault }}</p>
      <SliderField v-for="name in conditions" :key="name" :name="name" :label="t(name)" :reading="readings[name]" :value="kick[name]" :range="boot.ranges[name]" @change="kick = { ...kick, [name]: $event }"/>
    </section>
    <section class="card"><h2>{{ t("compare_outcomes") }}</h2>
      <p class="advice" role="status">{{ quality ? quality.verdict : "…" }}</p>
      <template v-if="quality?.curves.length">
        <Curves :curves="quality.curves" :w="w"/>
        <p class="keys"><span class="model-0-key">{{ t("compare_current") }} · {{ quality.brier[0] }}</span><span class="model-1-key">{{ names[other] }} · {{ quality.brier[1] }}</span></p>
        <p class="hint">{{ t("compare_text") }}</p>
      </template>
    </section>
  </div>`,
  data() {
    return {
      boot, w, t: w.t, conditions: CONDITIONS,
      other: Object.keys(boot.others)[0] ?? "",
      kick: { ...boot.defaults, kind: "penalty" },
      maps: [null, null],
      mapped: "", // the conditions and the model of the maps
      quality: null,
      fault: "",
    };
  },
  created() {
    this.colours = coloursOf(boot.stops);
  },
  computed: {
    names: () => Object.fromEntries(Object.keys(boot.others).map((name) => [name, w.t(`compare_model_${name}`)])),
    query() {
      return new URLSearchParams(CONDITIONS.map((name) => [name, this.kick[name]])).toString();
    },
    stale() {
      return this.mapped !== this.other + this.query;
    },
    spot() {
      return spotOf(this.kick);
    },
    answers() {
      const found = this.maps.map((map) => map && sample(map, this.spot.x, this.spot.out)?.probability);
      return this.stale || found.includes(null) || found.includes(undefined) ? null : found;
    },
    spoken() {
      const [first, second] = this.answers?.map(w.percent) ?? ["…", "…"];
      return `${placeOf(this.kick)}: ${first}, ${second}`;
    },
    readings() {
      const { wind, rain, minute } = this.kick;
      return { wind: w.t("wind_value", { value: w.number(wind) }), rain: w.percent(rain / 100), minute: w.t("minute_value", { value: w.number(minute) }) };
    },
    lines() {
      const [first, second] = this.maps;
      if (!first || !second) return [];
      const difference = second.probability.map((each, at) => each - first.probability[at]);
      const found = LEVELS.map((level) => ({ name: `level${100 * level}`, text: w.signed(100 * level), ...contour(first, difference, level) }));
      const labels = placeLabels(found.map((each) => each.spots), 0.72 * WIDTH, DEPTH, 2);
      return found.map((each, at) => ({ ...each, label: labels[at] }));
    },
  },
  watch: {
    query() {
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.loadMaps(), REST);
    },
  },
  mounted() {
    if (this.other) this.choose(this.other);
  },
  methods: {
    choose(name) {
      [this.other, this.quality] = [name, null];
      this.loadMaps();
      this.loadQuality();
    },
    place({ x, out }) {
      this.kick = { ...this.kick, ...kickAt(this.kick, { x, out }) };
    },
    async loadMaps() {
      const wanted = this.other + this.query;
      await this.ask(async () => {
        const answers = await Promise.all(["", this.other].map((model) => send(`/compare/map?model=${model}&${this.query}`)));
        const maps = await Promise.all(answers.map(async (each) => Object.freeze(decode(await each.arrayBuffer()))));
        if (wanted === this.other + this.query) [this.maps, this.mapped] = [maps, wanted];
      });
    },
    async loadQuality() {
      const name = this.other;
      await this.ask(async () => {
        const found = await (await send(`/compare/quality?model=${name}`)).json();
        if (name === this.other) this.quality = found;
      });
    },
    async ask(request) {
      try {
        await request();
        this.fault = "";
      } catch (error) {
        this.fault = error.answered ? w.t("failed", { why: error.message }) : w.t("offline");
      }
    },
  },
};

createApp(Comparison).mount("#board");
