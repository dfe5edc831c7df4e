// Beside the answer (Vue components): whether a penalty is worth a kick at goal, where to tee a conversion, and why.

import { NumberField } from "./controls.js";
import { decide, DEPTH, lineoutAt, teeZone } from "./rugby.js";
import { sample } from "./heat.js";

const SMALL = 0.02; // of probability: who stands elsewhere on the line gains nothing that could be seen
const VALUES = ["lineout_5", "lineout_22", "lineout_40", "lineout_50", "miss", "touch"];

export const Decision = {
  components: { NumberField },
  template: `
  <section class="card decision"><h2>{{ w.t("decision") }}</h2>
    <template v-if="found">
      <div v-for="each in bars" class="worth">
        <span>{{ each.label }}</span>
        <span class="track"><i :style="{width: Math.min(100 * each.value / 4.2, 100) + '%'}"></i>
          <em v-if="each.from" :style="{left: 100 * each.from / 4.2 + '%', width: 100 * (each.to - each.from) / 4.2 + '%'}"></em></span>
        <span class="value">{{ w.number(each.value, 1) }}</span>
      </div>
      <p class="advice">{{ advice }}</p>
      <p class="hint">{{ w.t("lineout", { metres: w.number(lineout), worth: w.number(found.corner, 1) }) }}</p>
    </template>
    <details><summary>{{ w.t("values") }}</summary>
      <div class="pair"><NumberField v-for="each in names" :key="each" :name="each" :label="w.t(each)" :value="kick[each]"
        :range="ranges[each]" :w="w" @change="$emit('change', { [each]: $event })"/></div>
      <p class="hint">{{ w.t("values_text") }}</p>
    </details>
  </section>`,
  props: { kick: Object, spot: Object, answer: Object, ranges: Object, w: Object },
  emits: ["change"],
  computed: {
    names: () => VALUES,
    found() {
      return this.answer && decide(this.spot, this.answer, this.kick);
    },
    lineout() {
      return lineoutAt(this.spot, this.kick.touch);
    },
    bars() {
      const { goal, corner, interval } = this.found;
      return [
        { label: this.w.t("points_goal"), value: goal, from: interval[0], to: interval[1] },
        { label: this.w.t("points_corner"), value: corner },
      ];
    },
    advice() {
      const { advice, goal, corner } = this.found;
      return this.w.t(`advice_${advice}`, { value: this.w.number(Math.abs(goal - corner), 1) });
    },
  },
};

export const TeeLine = {
  template: `
  <section class="card tee-card"><h2>{{ w.t("tee") }}</h2>
    <p>{{ w.t("tee_zone", { from: w.number(zone[0]), to: w.number(zone[1]) }) }}</p>
    <svg v-if="curve" class="curve" viewBox="0 0 300 84" aria-hidden="true">
      <rect class="zone" :x="across(zone[0])" y="0" :width="across(zone[1]) - across(zone[0])" height="80"/>
      <polyline :points="curve"/>
      <circle v-if="answer" :cx="across(kick.back)" :cy="80 - 76 * answer.probability" r="4"/>
    </svg>
    <p v-if="best" class="advice">{{ verdict }}</p>
    <button v-if="best && !here" class="button" @click="$emit('change', { back: best.back })">{{ w.t("tee_take", { best: w.number(best.back) }) }}</button>
    <p v-if="answer" class="hint">{{ w.t("tee_worth", { value: w.number(2 * answer.probability, 1) }) }}</p>
    <p class="hint">{{ w.t("chargers") }}</p>
  </section>`,
  props: { kick: Object, answer: Object, map: Object, usual: Object, w: Object },
  emits: ["change"],
  computed: {
    zone() {
      return teeZone(this.usual, this.kick.line);
    },
    points() {
      const backs = Array.from({ length: 2 * DEPTH - 9 }, (_, at) => 5 + at / 2);
      return this.map ? backs.map((back) => ({ back, probability: sample(this.map, this.kick.line, back)?.probability })) : [];
    },
    curve() {
      return this.points.map(({ back, probability }) => `${this.across(back).toFixed(1)},${(80 - 76 * probability).toFixed(1)}`).join(" ");
    },
    best() {
      const [from, to] = this.zone;
      return this.points.filter(({ back }) => back >= from && back <= to).reduce((best, each) => (each.probability > (best?.probability ?? -1) ? each : best), null);
    },
    here() {
      return this.answer && this.kick.back >= this.zone[0] && this.best.probability - this.answer.probability < SMALL;
    },
    verdict() {
      const values = { best: this.w.number(this.best.back), probability: this.w.percent(this.best.probability) };
      if (this.here) return this.w.t("tee_here");
      return this.w.t(this.kick.back < this.zone[0] ? "tee_near" : "tee_best", values);
    },
  },
  methods: {
    across: (back) => (300 * Math.min(back, DEPTH)) / DEPTH,
  },
};

export const Drivers = {
  template: `
  <section class="card drivers"><h2>{{ w.t("drivers") }}</h2>
    <p v-if="!found" class="hint">{{ w.t("no_drivers") }}</p>
    <template v-else>
      <p class="hint">{{ w.t("drivers_text", { average: w.percent(found.average) }) }}
        {{ found.mean === null ? "" : w.t("drivers_mean", { mean: w.percent(found.mean) }) }}</p>
      <ul class="bars">
        <li v-for="each in found.shares" :key="each.feature">
          <span>{{ w.t("feature_" + each.feature) }}<sup v-if="each.assumed">*</sup></span>
          <span class="track"><i :class="each.points > 0 ? 'helps' : 'hurts'" :style="barOf(each.points)"></i></span>
          <span class="value">{{ w.signed(each.points) }}</span>
        </li>
      </ul>
      <p v-if="found.shares.some((each) => each.assumed)" class="hint">* {{ w.t("assumed_text") }}</p>
    </template>
  </section>`,
  // found: the probability of the average kick, the mean of all, and each feature's share of the difference in points of percent.
  props: { found: Object, w: Object },
  methods: {
    barOf(points) {
      const widest = Math.max(10, ...this.found.shares.map((each) => Math.abs(each.points)));
      const width = (50 * Math.abs(points)) / widest;
      return { left: `${points > 0 ? 50 : 50 - width}%`, width: `${width}%` };
    },
  },
};
