// A kicker (a Vue component): the figures, every kick on the pitch over made minus expected, and the form.

import { formOf, kicksOf, placeOn, PRIOR, SCALE, surfaceOf, WINDOW } from "./figures.js";
import { coloursOf, contour, placeLabels } from "./heat.js";
import { Pitch } from "./pitch.js";
import { DEPTH, WIDTH } from "./rugby.js";
import { placeOf } from "./service.js";

const LEVELS = [-0.1, -0.05, 0.05, 0.1];
const STOPS = ["#a8480f", "#d79a72", "#a9b8b0", "#5fae9d", "#0f5f55"]; // from below expected to above
const [ACROSS, DOWN, AXIS, FOOT] = [340, 150, 34, 20]; // the drawing of the form

export const Kicker = {
  components: { Pitch },
  template: `
  <section class="card kicker" :aria-label="row.kicker">
    <h2 class="name" tabindex="-1">{{ row.kicker }}</h2>
    <dl class="stats">
      <div><dt>{{ t("head_kicks") }}</dt><dd>{{ w.number(row.kicks) }}</dd></div>
      <div><dt>{{ t("head_made") }}</dt><dd>{{ w.number(row.made) }} <small>{{ w.percent(row.made / row.kicks) }}</small></dd></div>
      <div><dt>{{ t("head_expected") }}</dt><dd>{{ w.number(row.expected, 1) }}</dd></div>
      <div><dt>{{ t("head_points") }}</dt><dd>{{ signed(row.points) }}</dd></div>
    </dl>
    <p class="verdict">{{ verdict }}</p>
    <p v-if="!kicks" class="hint" role="status">{{ t("loading") }}</p>
    <div v-else class="looks">
      <div class="look">
      <Pitch :map="surface" :colours="colours" :lines="lines" :t="t" :label="t('kicker_pitch', { kicker: row.kicker })">
        <template #marks><g class="kicks">
          <circle v-for="(each, at) in placed" :key="at" :cx="each.x" :cy="each.out" :r="each.size" :class="each.made ? 'made' : 'missed'"><title>{{ told(each) }}</title></circle>
        </g></template>
      </Pitch>
      <div class="legend">
        <div class="scale" :style="{ background: gradient }"></div>
        <div class="ticks"><span v-for="each in [-3, -2, -1, 0, 1, 2, 3]">{{ signed((100 * scale * each) / 3, 0) }}</span></div>
        <p class="keys"><span class="made-key">{{ t("scored") }}</span><span class="missed-key">{{ t("missed") }}</span><span>{{ t("kick_size") }}</span></p>
        <p class="hint">{{ t("surface_text", { prior }) }}</p>
        <p v-if="beyond" class="hint">{{ t("kicks_beyond", { count: w.number(beyond) }) }}</p>
      </div>
      </div>
      <div class="look">
      <h3>{{ t("form") }}</h3>
      <svg v-if="form.length > 1" class="form" :viewBox="'0 0 ${ACROSS} ${DOWN}'" role="img" :aria-label="t('form_label', { kicker: row.kicker, value: signed(100 * form.at(-1).value) })">
        <g v-for="each in ticks" :key="each.text"><path class="grid" :class="{ zero: !each.value }" :d="'M${AXIS} ' + each.y + 'H${ACROSS}'"/><text x="${AXIS - 5}" :y="each.y + 4" text-anchor="end">{{ each.text }}</text></g>
        <path class="band" :d="band"/><path class="line" :d="line"/>
        <text x="${AXIS}" y="${DOWN - 4}">{{ ends[0] }}</text><text x="${ACROSS}" y="${DOWN - 4}" text-anchor="end">{{ ends[1] }}</text>
      </svg>
      <p class="hint">{{ form.length > 1 ? t(dated ? "form_text" : "form_text_order", { window }) : t("form_few") }}</p>
      <details class="every" @toggle="listed = listed || $event.target.open"><summary>{{ t("every_kick") }}</summary>
        <div v-if="listed" class="scroll" tabindex="0"><table class="sheet">
          <thead><tr><th v-if="dated" scope="col">{{ t("column_date") }}</th><th v-if="kicks[0].line" scope="col">{{ t("line") }}</th><th scope="col">{{ t("spot") }}</th><th scope="col" class="end">{{ t("chance") }}</th><th scope="col">{{ t("outcome") }}</th></tr></thead>
          <tbody><tr v-for="each in kicks"><td v-if="dated">{{ each.date && day(each.date) }}</td><td v-if="kicks[0].line">{{ each.line }}</td><td>{{ placeOf(each) }}</td><td class="end">{{ w.percent(each.chance) }}</td><td>{{ t(each.made ? "scored" : "missed") }}</td></tr></tbody>
        </table></div>
      </details>
      </div>
    </div>
  </section>`,
  // columns: of all kicks; label: the kicker's position in them; row: of the table, with points.
  props: { row: Object, columns: Object, label: Number, t: Function, w: Object },
  data: () => ({ listed: false, prior: PRIOR, scale: SCALE, window: WINDOW }),
  created() {
    this.colours = coloursOf(STOPS);
    this.gradient = `linear-gradient(90deg, ${STOPS.join(", ")})`;
  },
  computed: {
    kicks() {
      return this.columns && Object.freeze(kicksOf(this.columns, this.label));
    },
    placed() {
      // The hardest last, so that none of them hides below an easy one.
      const placed = this.kicks.map((each) => ({ ...each, ...placeOn(each), size: 0.55 + 1.1 * (1 - each.chance) }));
      return placed.filter(({ out }) => out <= DEPTH).sort((one, other) => other.chance - one.chance);
    },
    beyond() {
      return this.kicks.length - this.placed.length;
    },
    dated() {
      return this.kicks.some((each) => each.date);
    },
    surface() {
      return Object.freeze(surfaceOf(this.kicks));
    },
    lines() {
      const found = LEVELS.map((level) => ({ name: `points-${Math.round(100 * level)}`, text: this.signed(100 * level, 0), ...contour(this.surface, this.surface.difference, level) }));
      const labels = placeLabels(found.map((each) => each.spots), WIDTH / 2, DEPTH, 2);
      return found.map((each, at) => ({ ...each, label: labels[at] }));
    },
    form() {
      return formOf(this.kicks);
    },
    limit() {
      return Math.max(0.1, ...this.form.map(({ low, high }) => Math.max(-low, high)));
    },
    ticks() {
      const step = this.limit > 0.4 ? 0.4 : this.limit > 0.2 ? 0.2 : 0.1;
      return [-step, 0, step].map((value) => ({ value, y: this.yOf(value), text: this.signed(100 * value, 0) }));
    },
    line() {
      return `M${this.form.map((each, at) => `${this.xOf(each, at)} ${this.yOf(each.value)}`).join("L")}`;
    },
    band() {
      const edge = (name) => this.form.map((each, at) => `${this.xOf(each, at)} ${this.yOf(each[name])}`);
      return `M${[...edge("low"), ...edge("high").reverse()].join("L")}Z`;
    },
    ends() {
      const ends = [this.form[0], this.form.at(-1)];
      return ends.map((each) => (each.date ? this.day(each.date) : this.t("kick_number", { number: this.w.number(each.number) })));
    },
    verdict() {
      const { points, points_from: from, points_to: to } = this.row;
      const values = { points: this.w.number(Math.abs(points), 1), from: this.signed(from), to: this.signed(to) };
      return this.t(from > 0 ? "verdict_more" : to < 0 ? "verdict_less" : "verdict_luck", values);
    },
  },
  methods: {
    placeOf,
    signed(value, digits = 1) {
      return this.w.signed(value, digits);
    },
    day(date) {
      return new Intl.DateTimeFormat(document.documentElement.lang || "en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }).format(date);
    },
    told(kick) {
      const told = [kick.date && this.day(kick.date), placeOf(kick), this.w.percent(kick.chance), this.t(kick.made ? "scored" : "missed")];
      return told.filter(Boolean).join(" · ");
    },
    xOf({ date }, at) {
      const [first, last] = [this.form[0], this.form.at(-1)];
      const part = this.form.every((each) => each.date) && last.date > first.date ? (date - first.date) / (last.date - first.date) : at / (this.form.length - 1);
      return (AXIS + part * (ACROSS - AXIS)).toFixed(1);
    },
    yOf(value) {
      return Number(((DOWN - FOOT) / 2 - (value / this.limit) * ((DOWN - FOOT) / 2 - 4)).toFixed(1));
    },
  },
};
