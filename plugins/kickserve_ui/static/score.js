// The score of a match, and what its kicks at goal were worth: by team and kicker, expected and actual.

const POINTS = { try: 5, penalty_try: 7, conversion: 2, penalty: 3, drop: 3 };
const ATTEMPTS = new Set(["penalty", "conversion"]);

/** Whether an entry is a place kick at goal, of which the chance is known. */
export const isAttempt = ({ what }) => ATTEMPTS.has(what);

/** The points that an entry brought. */
export const pointsOf = ({ what, outcome }) => (outcome ? POINTS[what] : 0);

/** The points that a kick at goal was worth on average; 0 where its chance is not known, or it is another thing. */
export const expectedOf = (entry) => (isAttempt(entry) ? POINTS[entry.what] * (chanceOf(entry) ?? 0) : 0);

/** The chance of a kick: as the service recorded it, or as it was shown. */
export const chanceOf = ({ sent, probability }) => sent?.probability ?? probability;

const sum = (values) => values.reduce((total, each) => total + each, 0);

export const scoreOf = (entries, team) => sum(entries.filter((each) => each.team === team).map(pointsOf));

/** Kicks at goal by team, and below it by kicker: attempts, made, points and expected points. */
export function tally(entries) {
  const kicks = entries.filter(isAttempt);
  const row = (name, own) => ({ name, attempts: own.length, made: own.filter((each) => each.outcome).length, points: sum(own.map(pointsOf)), expected: sum(own.map(expectedOf)) });
  return [0, 1].map((team) => {
    const own = kicks.filter((each) => each.team === team);
    const kickers = [...new Set(own.map((each) => each.kicker))];
    return { ...row(null, own), kickers: kickers.map((name) => row(name, own.filter((each) => each.kicker === name))) };
  });
}
