// The page: api/events tells what happens, api/... the rest. Names, captions and addresses come
// from strangers: every text goes in as text, and only http addresses become links.

const PATIENCE = 30_000; // ms for an answer
const SILENCE = 12_000; // ms without an event, of which there is one a second, until the link counts as lost
const LONGEST_WAIT = 10_000; // ms between attempts to get it back
const HISTORY = 600; // seconds that the charts show
const STEP = 5; // seconds of one point in them
const RECENT = 10; // seconds of the figures at the top
const SHOWN = 50; // jobs at first, and more each time that older ones are asked for
const FEW_HOSTS = 10;
const PAGE = 15; // failures or shards
const GALLERY = 24; // pictures
const FOLLOW = 500; // ms after a whole shard until the lists of a job are asked for again
const SIGNED_IN = "capstan.ingest.signed-in"; // in this browser: there is a session to end

const jobs = new Map(); // id -> Job, as last told
const told = new Set(); // ids that the stream told of: what it says is newer than a list's
const seconds = new Map(); // t -> {t, rows, images, failures, bytes}
const rows = new Map(); // id -> JobParts of the list
let statistics = null;
let source = null; // the stream of events
let heard = 0; // when it last said something, ms
let wait = 1000; // ms until the next attempt at it
let retry = 0; // its timer
let view = null; // the JobView shown; without one, all jobs are
let shown = SHOWN; // how many jobs of the list
let next = null; // where its older ones go on, asking the service
let allHosts = false; // are listed, or only a few
let drawing = false; // the next frame draws
