// The answer to a kick (a Vue component): the number in a coach's words, and the buttons that record what came of it.

export const Answer = {
  template: `
  <div class="answer" :class="{ stale, exact }" :aria-busy="stale">
    <div class="figures">
      <p class="number">{{ answer ? w.percent(answer.probability) : "…" }}</p>
      <div class="meaning">
        <p class="word">{{ answer ? w.often(answer.probability) : "" }}</p>
        <p class="place">{{ place }}</p>
      </div>
    </div>
    <template v-if="answer">
      <template v-if="answer.interval">
        <div class="range" aria-hidden="true">
          <i :style="{left: 100 * answer.interval[0] + '%', width: 100 * (answer.interval[1] - answer.interval[0]) + '%'}"></i>
          <b :style="{left: 100 * answer.probability + '%'}"></b>
        </div>
        <p class="interval">{{ interval }}</p>
      </template>
      <p v-else class="interval">{{ w.t("no_interval") }}</p>
    </template>
    <p v-for="each in warnings" class="warning">{{ each }}</p>
    <div class="results" role="group" :aria-label="w.t('result')">
      <button v-if="!record" class="button primary" :disabled="disabled" @click="$emit('record')">{{ w.t("record") }}</button>
      <p v-else class="recorded">✓ {{ w.t("recorded") }}</p>
      <button class="button good" :disabled="disabled" :aria-pressed="record?.outcome === true" @click="$emit('mark', true)">{{ w.t("scored") }}</button>
      <button class="button bad" :disabled="disabled" :aria-pressed="record?.outcome === false" @click="$emit('mark', false)">{{ w.t("missed") }}</button>
      <button v-if="undoable" class="button undo" :disabled="busy" :aria-label="w.t('undo')" :title="undoable" @click="$emit('undo')">{{ w.t("undo") }}</button>
    </div>
    <p class="note" role="status">{{ note }}</p>
  </div>`,
  // answer: probability and interval; exact: whether the service itself gave it, for this very kick; record: of this kick, if it is recorded; undoable: what Undo takes back.
  props: {
    answer: Object, place: String, warnings: Array, stale: Boolean, exact: Boolean,
    record: Object, may: Boolean, busy: Boolean, undoable: String, note: String, w: Object,
  },
  emits: ["record", "mark", "undo"],
  computed: {
    disabled() {
      return !this.may || this.busy || this.stale || !this.answer;
    },
    interval() {
      const [low, high] = this.answer.interval.map(this.w.percent);
      return low === high ? this.w.t("interval_one", { low }) : this.w.t("interval", { low, high });
    },
  },
};
