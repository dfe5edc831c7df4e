// The words of the page: texts and numbers in the visitor's language, and probabilities as people say them.

const MINUS = "\u2212";

/** Return functions that write texts and numbers; `texts` by key, with values in braces. */
export function wordsOf(language, texts) {
  const write = (value, digits = 0) =>
    new Intl.NumberFormat(language === "fr" ? "fr-FR" : "en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits })
      .format(value)
      .replace("-", MINUS);
  const t = (key, values = {}) => texts[key].replace(/{(\w+)}/g, (_, name) => values[name]);
  const percent = (probability) => {
    const [whole, space] = [Math.round(100 * probability), language === "fr" ? "\u202f" : ""];
    if (whole >= 100 && probability < 1) return `>99${space}%`;
    return whole <= 0 && probability > 0 ? `<1${space}%` : `${whole}${space}%`;
  };
  return {
    t,
    percent,
    number: write,
    signed(value, digits = 0) {
      const rounded = Number(value.toFixed(digits)) || 0;
      return (rounded > 0 ? "+" : "") + write(rounded, digits);
    },
    /** "7 in 10", "3 in 4"; of a hundred only where tens would say never or always. */
    often(probability) {
      const quarter = Math.abs(Math.abs(probability - 0.5) - 0.25) < 0.02;
      const of = quarter ? 4 : probability >= 0.05 && probability < 0.95 ? 10 : 100;
      return t("often", { count: Math.min(Math.max(Math.round(of * probability), 1), of - 1), of });
    },
    likelihood: (probability) => t(WORDS.find(([, lowest]) => probability >= lowest)[0]),
  };
}

// The lowest probability that each word is for.
const WORDS = [
  ["word_sure", 0.9],
  ["word_likely", 0.7],
  ["word_leaning", 0.55],
  ["word_even", 0.45],
  ["word_doubtful", 0.25],
  ["word_unlikely", 0.1],
  ["word_long_shot", 0],
];
