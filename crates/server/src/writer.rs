//! The writer's loop: waits for requests and alarms, takes turns, and hands them to the committer in order.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::commit::Turn;
use crate::measured::Measured;
use crate::turn::{Request, Writer};

/// How often the writer looks for outdated events, and how long it waits at most.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Takes turns until the requests end or the committer stops.
pub fn run(mut writer: Writer, requests: Receiver<Box<Request>>, committer: SyncSender<Turn>, measured: &Measured) {
    let mut kept_house = Instant::now();
    loop {
        let mut first = match next_request(&writer, &requests) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = clock();
        writer.observe(measured.usage());
        let turn =
            writer.take_turn(&mut || first.take().or_else(|| requests.try_recv().ok()).map(|request| *request), now);
        if !hand_over(turn, &committer) {
            return;
        }
        if HOUSEKEEPING <= kept_house.elapsed() {
            kept_house = Instant::now();
            if !hand_over(writer.keep_house(now), &committer) {
                return;
            }
        }
    }
}

/// Waits for a request, but not when decisions are left over and not past the next alarm.
fn next_request(writer: &Writer, requests: &Receiver<Box<Request>>) -> Result<Option<Box<Request>>, RecvTimeoutError> {
    if writer.has_decisions() {
        return Ok(requests.try_recv().ok());
    }
    let wait = writer.next_alarm().map_or(HOUSEKEEPING, |time| {
        let left = time.duration_since(Timestamp::now());
        Duration::try_from(left).unwrap_or(Duration::ZERO).min(HOUSEKEEPING)
    });
    requests.recv_timeout(wait).map(Some)
}

/// False if nobody commits any more.
fn hand_over(turn: Turn, committer: &SyncSender<Turn>) -> bool {
    turn.is_empty() || committer.send(turn).is_ok()
}

/// The time in whole seconds: what every timestamp in the API has, so that decisions compare like with like.
pub fn clock() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
