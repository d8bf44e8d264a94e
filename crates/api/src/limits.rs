//! The bounds of the API in one place; those of a protocol or of the node stand beside their code. A loop, queue, buffer or object without a
//! bound is a bug.

/// Bytes of a request body (upstream: `MaxRequestBodyBytes`).
pub const REQUEST_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Bytes read of a body that is too large, so that its sender gets to see the answer.
pub const DISCARDED_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of one stored object (etcd's default request limit, which Kubernetes users know).
pub const OBJECT_BYTES: usize = 1536 * 1024;
/// Levels of nesting in a JSON document.
pub const JSON_DEPTH: usize = 128;
/// Operations of a JSON patch (upstream: `maxJSONPatchOperations`).
pub const JSON_PATCH_OPERATIONS: usize = 10_000;
/// Requests taken into one turn.
pub const TURN_REQUESTS: usize = 512;
/// Decisions run in one turn; what is left waits for the next.
pub const TURN_DECISIONS: usize = 4_096;
/// Writes of one turn after which no further request or decision is taken in.
pub const TURN_WRITES: usize = 1_024;
/// Bytes of JSON after which turns that wait for the disk are no longer made durable together: they are copied for it.
pub const COMMIT_BYTES: usize = 1 << 20;
/// Steps of a forecast; a rollout of more is told up to there.
pub const FORECAST_STEPS: usize = 2_000;
/// Turns that one step of a forecast takes at most.
pub const FORECAST_TURNS: usize = 64;
/// Forecasts made at once.
pub const FORECASTS: usize = 2;
/// Requests waiting for the writer; more get 429.
pub const WAITING_REQUESTS: usize = 8_192;
/// Turns computed but not yet durable.
pub const TURNS_IN_FLIGHT: usize = 4;
/// Streams into pods (exec, attach, port-forward) open at a time; more get 429.
pub const STREAMS: usize = 1_024;
/// Requests passed on to API servers that extend this one, at a time; more get 429.
pub const PASSED_ON: usize = 512;
/// Bytes of an answer of such a server that this one reads itself (discovery, metrics).
pub const PASSED_ON_ANSWER_BYTES: usize = 8 << 20;
/// Bytes of JSON of one kind's changes that are kept ready for watchers that follow.
pub const WATCH_RECENT_BYTES: usize = 2 << 20;
/// The same of older changes, for watchers that resume; resource versions before those get 410.
pub const WATCH_HISTORY_BYTES: usize = 6 << 20;
/// Bytes of a watch's answer that are made ready at a time.
pub const WATCH_CHUNK_BYTES: usize = 1 << 20;
/// Seconds that a watch lasts at most, and if nobody says how long.
pub const WATCH_SECONDS: u64 = 2_700;

/// Seconds an event is kept.
pub const EVENT_TTL_SECONDS: i64 = 3_600;
/// Events kept; the oldest go first.
pub const EVENTS: usize = 10_000;
/// Attempts to find a free generated name (upstream: KEP-4420).
pub const GENERATE_NAME_ATTEMPTS: usize = 8;
/// Pods one ReplicaSet decision makes or deletes (upstream: `BurstReplicas`).
pub const BURST_REPLICAS: usize = 500;
/// Bytes of all annotations of an object (upstream: `TotalAnnotationSizeLimitB`).
pub const ANNOTATIONS_BYTES: usize = 256 * 1024;
/// Bytes of all values of a ConfigMap or a Secret (upstream: `MaxSecretSize`).
pub const CONFIG_BYTES: usize = 1024 * 1024;
/// Bytes of changes read back at start, for watchers that resume across a restart.
pub const RECOVERED_HISTORY_BYTES: usize = 4 << 20;
