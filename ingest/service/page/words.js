// Words and numbers

const whole = new Intl.NumberFormat("en").format;
const brief = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format;
const compact = (value) => (value >= 100_000 || value < 10 ? brief(value) : whole(Math.round(value)));
const sum = (values) => values.reduce((total, value) => total + value, 0);
const plain = (reason) => reason.replaceAll("_", " ");
const counted = (number, word) => `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
const failed = (job) => sum(Object.values(job.failures));
const ended = (job) => ["done", "failed", "cancelled"].includes(job.state);

function size(bytes) {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power && value < 99.95 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

function percent(part, all) {
  if (!part || !all) return "0 %";
  const share = (100 * part) / all;
  if (share < 0.1) return "< 0.1 %";
  return `${Math.floor(share * 10) / 10} %`; // never 100 before it is all
}

function duration(value) {
  const units = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = Math.max(0, units.findIndex(([length]) => value >= length));
  if (value < 1) return "0 s";
  const [length, name] = units[at];
  const rest = Math.floor((value % length) / (units[at + 1]?.[0] ?? 1));
  const main = `${Math.floor(value / length)} ${name}`;
  return rest && at < 2 ? `${main} ${rest} ${units[at + 1][1]}` : main;
}

const MOMENT = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

function moment(text) {
  const made = make("time", new Date(text).toLocaleString("en", MOMENT));
  made.dateTime = text;
  return made;
}
