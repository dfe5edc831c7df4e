// Rugby on the page: spots and kicks, where a conversion is teed, and whether a penalty is worth a kick at goal.
//
// Spots are metres as the kicker sees the pitch: `x` from the left touch line, `out` from the goal line.

export const [WIDTH, DEPTH, LENGTH, POSTS] = [70, 62, 100, 5.6];
const [NEAREST, FURTHEST] = [2, 100]; // metres to the posts that the service takes
const CHARGED = 10; // metres from the goal line: who tees a conversion nearer is charged down
const EDGE = 5; // the first and the last so many minutes count as start and endgame

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value, digits = 1) => Number(value.toFixed(digits));

/** Return the spot of a kick; it may lie off the pitch. */
export function spotOf(kick) {
  if (kick.kind === "conversion") return { x: kick.line, out: kick.back };
  const radians = (kick.angle * Math.PI) / 180;
  const aside = kick.distance * Math.sin(radians);
  return { x: WIDTH / 2 + (kick.side === "left" ? -aside : aside), out: kick.distance * Math.cos(radians) };
}

/**
 * Return the kick's fields with the ball at a spot; a conversion stays on the line through its try.
 *
 * Distance and angle are rounded as the page shows them: the model gets exactly the numbers shown.
 */
export function kickAt(kick, { x, out }) {
  const place = kick.kind === "conversion" ? { line: round(x), back: round(Math.max(out, 0)) } : {};
  if (kick.kind === "conversion") [x, out] = [place.line, place.back];
  const aside = x - WIDTH / 2;
  return {
    ...place,
    distance: clamp(round(Math.hypot(aside, out)), NEAREST, FURTHEST),
    angle: round((Math.atan2(Math.abs(aside), Math.max(out, 0)) * 180) / Math.PI),
    side: aside < 0 ? "left" : "right",
  };
}

/** Return the part of the match that counts for the model: by the minute, or as a stored kick has it. */
export function phaseOf(kick) {
  if (kick.phase) return kick.phase;
  if (kick.minute <= EDGE) return "start";
  return kick.minute >= 80 - EDGE ? "end" : "middle";
}

/**
 * Return from where to where the ball of a conversion usually lies, in metres back from the goal line.
 *
 * `usual` holds the median by the try's distance from the middle of the posts, and the spread: nine kickers in ten
 * tee the ball within it (SIMULATOR's figures, plugins/kickserve_data/simulate.py).
 */
export function teeZone(usual, line) {
  const aside = Math.abs(line - WIDTH / 2);
  const { aside: places, back, spread } = usual;
  let at = places.findIndex((each) => each >= aside);
  if (at === -1) at = places.length - 1;
  const part = at ? clamp((aside - places[at - 1]) / (places[at] - places[at - 1]), 0, 1) : 0;
  const median = at ? back[at - 1] + part * (back[at] - back[at - 1]) : back[0];
  return [Math.max(median * Math.exp(-1.645 * spread), CHARGED), median * Math.exp(1.645 * spread)];
}

/** Return the spot where kickers tee a conversion on the line of a try. */
export function teeSpot(usual, line) {
  const [from, to] = teeZone(usual, line);
  return { x: line, out: Math.round(Math.sqrt(from * to)) };
}

const MARGIN = 10; // metres: a kicker aims no nearer to the goal line, beyond which the lineout is lost
const SPREAD = 5; // metres: standard deviation of where the kick goes out
const BANDS = [
  ["lineout_5", -Infinity, 5],
  ["lineout_22", 5, 22],
  ["lineout_40", 22, 40],
  ["lineout_50", 40, Infinity],
];

/** Return how many metres from the goal line a kick to the corner comes to a lineout: on the nearer side. */
export function lineoutAt({ x, out }, touch) {
  const across = Math.min(Math.max(x, 0), Math.max(WIDTH - x, 0));
  return Math.max(MARGIN, out - Math.sqrt(Math.max(touch * touch - across * across, 0)));
}

/** Return the points that a kick to the corner is worth: those of lineouts where it may go out. */
export function cornerWorth(spot, values) {
  const place = lineoutAt(spot, values.touch);
  const below = (edge) => 1 / (1 + Math.exp((-1.702 * (edge - place)) / SPREAD)); // nearly the normal distribution
  return BANDS.reduce((sum, [name, from, to]) => sum + values[name] * (below(to) - below(from)), 0);
}

/**
 * Compare a penalty kick at goal with a kick to the corner, in points expected.
 *
 * Returns the worth of both, the interval of the first, and the advice: "goal" or "corner"; "close" where the corner
 * is worth what the kick at goal may well be worth; "outside" where the model warns, as it knows no such kicks.
 */
export function decide(spot, answer, values) {
  const worth = (probability) => 3 * probability + (1 - probability) * values.miss;
  const [goal, corner] = [worth(answer.probability), cornerWorth(spot, values)];
  const interval = (answer.interval ?? [answer.probability, answer.probability]).map(worth).sort((one, other) => one - other);
  const close = Math.abs(goal - corner) < 0.1 || (corner >= interval[0] && corner <= interval[1]);
  const better = goal > corner ? "goal" : "corner";
  return { goal, corner, interval, advice: answer.warned ? "outside" : close ? "close" : better };
}

/** Return how much more a kick at goal is worth than the corner at every spot of a map; NaN where the model warns. */
export function gains(map, values) {
  return Float32Array.from(map.probability, (probability, at) => {
    if (map.warned[at]) return NaN;
    const spot = { x: (at % map.columns) * map.step, out: Math.floor(at / map.columns) * map.step };
    return 3 * probability + (1 - probability) * values.miss - cornerWorth(spot, values);
  });
}
