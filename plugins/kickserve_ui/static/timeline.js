// The timeline of a match (a Vue component): points from kicks at goal, expected against actual, by team and kicker.

import { chanceOf, expectedOf, isAttempt, pointsOf, tally } from "./score.js";
import { isWaiting } from "./queue.js";

const [WIDE, HIGH, LEFT, TOP] = [320, 130, 22, 8]; // of the chart, and its margins

export const Timeline = {
  template: `
  <section class="card timeline"><h2>{{ w.t("match_timeline") }}</h2>
    <p v-if="!entries.length" class="hint">{{ w.t("match_nothing") }}</p>
    <template v-else>
      <template v-if="kicks.length">
        <svg class="race" :viewBox="'0 0 ${LEFT + WIDE + 9} ${TOP + HIGH + 16}'" aria-hidden="true">
          <g v-for="each in levels"><path class="grid" :d="'M${LEFT} ' + y(each) + 'H${LEFT + WIDE}'"/><text x="${LEFT - 4}" :y="y(each) + 3.5" class="end">{{ each }}</text></g>
          <text v-for="each in minutes" :x="x(each)" y="${TOP + HIGH + 14}">{{ w.t("minute_value", { value: each }) }}</text>
          <g v-for="team in [0, 1]" :class="'team-' + team"><path class="expected" :d="steps(team, expectedOf)"/><path class="actual" :d="steps(team, pointsOf)"/></g>
        </svg>
        <p class="keys"><span v-for="team in [0, 1]" class="line-key" :class="'team-' + team">{{ names[team] }}</span><span class="line-key dashed">{{ w.t("match_expected") }}</span></p>
        <table class="sheet tally">
          <thead><tr><th scope="col">{{ w.t("match_kicks") }}</th><th v-for="each in ['match_made', 'match_points', 'match_expected']" scope="col" class="end">{{ w.t(each) }}</th></tr></thead>
          <tbody v-for="(team, at) in tally" :key="at"><template v-if="team.attempts">
            <tr v-for="row in [team, ...team.kickers]" :class="row.name === null ? 'whole' : 'one'">
              <th scope="row">{{ row.name === null ? names[at] : row.name || w.t("match_unnamed") }}</th>
              <td class="end">{{ w.t("match_of", { made: row.made, attempts: row.attempts }) }}</td><td class="end">{{ row.points }}</td><td class="end">{{ w.number(row.expected, 1) }}</td>
            </tr></template></tbody>
        </table>
      </template>
      <ol class="story"><li v-for="each in newest" :key="each.id" :data-id="each.id" :class="'team-' + each.team">
        <span class="when">{{ w.t("minute_value", { value: each.minute }) }}</span><span>{{ told(each) }}</span>
        <span v-if="isWaiting(each)" class="badge">{{ w.t("match_waits") }}</span>
      </li></ol>
    </template>
  </section>`,
  // entries: of the match, oldest first; names: of the teams; say: puts an entry in words.
  props: { entries: Array, names: Array, say: Function, w: Object },
  computed: {
    kicks() {
      return this.entries.filter(isAttempt).sort((one, other) => one.minute - other.minute);
    },
    tally() {
      return tally(this.entries);
    },
    newest() {
      return [...this.entries].reverse();
    },
    last() {
      return Math.max(80, ...this.entries.map((each) => each.minute));
    },
    top() {
      return Math.max(6, ...this.tally.flatMap((each) => [each.points, each.expected]));
    },
    levels() {
      const step = Math.ceil(this.top / 4 / 3) * 3;
      return [0, 1, 2, 3, 4].map((each) => each * step).filter((each) => each <= this.top);
    },
    minutes: () => [0, 20, 40, 60, 80],
  },
  methods: {
    expectedOf,
    isWaiting,
    pointsOf,
    x(minute) {
      return LEFT + (WIDE * minute) / this.last;
    },
    y(points) {
      return TOP + HIGH * (1 - points / this.top);
    },
    /** A line that rises at each kick of a team by what it was worth. */
    steps(team, worth) {
      let points = 0;
      const parts = this.kicks.filter((each) => each.team === team).map((each) => `H${this.x(each.minute).toFixed(1)}V${this.y((points += worth(each))).toFixed(1)}`);
      return `M${LEFT} ${this.y(0)}${parts.join("")}H${this.x(Math.max(...this.entries.map((each) => each.minute))).toFixed(1)}`;
    },
    told(entry) {
      const chance = isAttempt(entry) ? chanceOf(entry) : null;
      return chance == null ? this.say(entry) : `${this.say(entry)} (${this.w.percent(chance)})`;
    },
  },
};
