// The columns of a visitor's file (a Vue component): which is what, as far as the service can tell, to be corrected.

const FIRST = ["kicker", "success", "distance", "angle", "is_left_side", "date"];

export const Columns = {
  template: `
  <form class="matching" @submit.prevent="$emit('use', chosen)">
    <p v-if="found.missing.length || found.guessed.length" class="hint">{{ t("columns_text") }}</p>
    <component v-for="(group, at) in groups" :is="at ? 'details' : 'div'"><summary v-if="at">{{ t("columns_more") }}</summary><div class="match-rows">
      <label v-for="column in group" :key="column" class="number-field" :data-column="column">
        <span>{{ t("column_" + column) }}</span>
        <select :value="chosen[column] ?? ''" :aria-invalid="faulty(column)" @change="choose(column, $event.target.value)">
          <option value="">{{ absent(column) }}</option>
          <option v-for="name in names" :key="name" :value="name">{{ name }}</option>
        </select>
        <span v-if="faulty(column)" class="fault">{{ t("column_needed") }}</span>
        <span v-else-if="guessed(column)" class="guess">{{ t("column_guess", { name: chosen[column], column: t("column_" + column) }) }}</span>
        <span v-if="chosen[column]" class="hint">{{ examples(chosen[column]) }}</span>
      </label>
    </div></component>
    <div class="pager"><button class="button primary" :disabled="busy || boot.required.some(faulty)">{{ t("columns_use") }}</button></div>
  </form>`,
  props: { found: Object, boot: Object, busy: Boolean, t: Function, w: Object },
  emits: ["use"],
  data() {
    return { chosen: { ...this.found.columns }, touched: [] };
  },
  computed: {
    names() {
      return [...new Set(this.found.header.filter((name) => name))];
    },
    /** The columns that the file has or should have, and the others. */
    groups() {
      const found = (column) => FIRST.includes(column) || column in this.found.columns;
      const groups = [this.boot.columns.filter(found), this.boot.columns.filter((column) => !found(column))];
      return groups.filter((group) => group.length);
    },
  },
  methods: {
    choose(column, name) {
      const { [column]: _, ...others } = this.chosen;
      this.chosen = name ? { ...others, [column]: name } : others;
      this.touched.push(column);
    },
    faulty(column) {
      return this.boot.required.includes(column) && !this.chosen[column];
    },
    guessed(column) {
      return this.found.guessed.includes(column) && !this.touched.includes(column);
    },
    examples(name) {
      return this.found.examples[this.found.header.indexOf(name)].join(" · ");
    },
    /** Say what stands for a column that the file has not. */
    absent(column) {
      if (this.boot.required.includes(column)) return this.t("column_choose");
      return this.t("column_absent", { usual: this.t(`usual_${column}`, this.boot.usual) });
    },
  },
};
