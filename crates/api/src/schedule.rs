//! When a CronJob is due: the grammar of schedules and time zones, and the times they stand for.
//!
//! The grammar is `croner`'s, to which `@every DURATION` of upstream's library (`robfig/cron`) is added. A schedule
//! without a time zone is one in UTC. The time zones are compiled in. Reads no clock: the times are arguments.

use std::sync::LazyLock;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// A schedule in its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Pattern {
    Cron(Box<Cron>),
    Every(SignedDuration),
}

/// Why a schedule is not understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The five fields, or the word that stands for them.
    #[error("{0}")]
    Pattern(String),
    /// The time zone.
    #[error("unknown time zone {0}")]
    Zone(String),
}

/// The time zone of this name in the IANA database, if there is one.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    ZONES.get(name).ok()
}

impl Schedule {
    /// Reads a schedule; without a zone it is in UTC.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Schedule, ScheduleError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => time_zone(name).ok_or_else(|| ScheduleError::Zone(name.to_owned()))?,
        };
        Ok(Schedule { pattern: Pattern::parse(text)?, zone })
    }

    /// The zone that the schedule's hours are in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after `time`; `None` if there is none.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        match &self.pattern {
            Pattern::Every(period) => whole_seconds(time)?.checked_add(*period).ok(),
            Pattern::Cron(cron) => {
                let next = cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false);
                next.ok().map(|next| next.timestamp())
            }
        }
    }

    /// The last time up to `time` and counted from `first`, which is one of the schedule's own.
    pub fn latest(&self, first: Timestamp, time: Timestamp) -> Option<Timestamp> {
        let latest = match &self.pattern {
            Pattern::Every(period) => {
                let periods = time.duration_since(first).as_secs() / period.as_secs();
                first.checked_add(SignedDuration::from_secs(periods.checked_mul(period.as_secs())?)).ok()?
            }
            Pattern::Cron(cron) => {
                let last = cron.find_previous_occurrence(&whole_seconds(time)?.to_zoned(self.zone.clone()), true);
                last.ok()?.timestamp()
            }
        };
        Some(latest).filter(|latest| first <= *latest)
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, ScheduleError> {
        let wrong = |why: String| Err(ScheduleError::Pattern(why));
        if let Some(period) = text.strip_prefix("@every ") {
            let Some(period) = go_duration(period) else {
                return wrong(format!("failed to parse duration {text}: time: invalid duration \"{period}\""));
            };
            return Ok(Pattern::Every(SignedDuration::from_secs(period.as_secs().max(1))));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        if !text.starts_with('@') && fields.len() != 5 {
            return wrong(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        match parser.parse(text) {
            Ok(cron) => Ok(Pattern::Cron(Box::new(cron))),
            Err(_) if text.starts_with('@') => wrong(format!("unrecognized descriptor: {text}")),
            Err(error) => wrong(error.to_string()),
        }
    }
}

fn whole_seconds(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

/// A duration as Go writes it: `90s`, `1h30m`, `1.5h`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| SignedDuration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn shown(text: &str, zone: Option<&str>, from: &str) -> String {
        let schedule = match Schedule::parse(text, zone) {
            Ok(schedule) => schedule,
            Err(error) => return format!("{text:<20} {error}\n"),
        };
        let mut time: Timestamp = from.parse().unwrap();
        let mut line = format!("{text:<20} {:<16}", zone.unwrap_or("-"));
        for _ in 0..3 {
            match schedule.after(time) {
                Some(next) => time = next,
                None => return line + " never\n",
            }
            line += &format!(" {time}");
        }
        line + "\n"
    }

    #[test]
    fn times() {
        let from = "2026-03-07T10:07:30.5Z";
        let table = [
            shown("*/5 * * * *", None, from),
            shown("0 * * * ?", None, from),
            shown("@hourly", None, from),
            shown("@daily", Some("Asia/Shanghai"), from),
            shown("@every 1h30m", None, from),
            shown("30 6-16/4 * * 1-5", None, from),
            shown("0 0 1 JAN MON", None, from),
            // The hour from two to three is left out, and comes twice.
            shown("30 2 * * *", Some("America/New_York"), from),
            shown("30 1 * * *", Some("America/New_York"), "2026-10-31T12:00:00Z"),
            shown("59 23 31 2 *", None, from),
            shown("61 * * * *", None, from),
            shown("* * * *", None, from),
            shown("0 0 0 * * *", None, from),
            shown("@nonsense", None, from),
            shown("@every soon", None, from),
            shown("hello", None, from),
            shown("a b c d e", None, from),
            shown("* * * * *", Some("Mars/Olympus"), from),
        ]
        .concat();
        expect![[r#"
            */5 * * * *          -                2026-03-07T10:10:00Z 2026-03-07T10:15:00Z 2026-03-07T10:20:00Z
            0 * * * ?            -                2026-03-07T11:00:00Z 2026-03-07T12:00:00Z 2026-03-07T13:00:00Z
            @hourly              -                2026-03-07T11:00:00Z 2026-03-07T12:00:00Z 2026-03-07T13:00:00Z
            @daily               Asia/Shanghai    2026-03-07T16:00:00Z 2026-03-08T16:00:00Z 2026-03-09T16:00:00Z
            @every 1h30m         -                2026-03-07T11:37:30Z 2026-03-07T13:07:30Z 2026-03-07T14:37:30Z
            30 6-16/4 * * 1-5    -                2026-03-09T06:30:00Z 2026-03-09T10:30:00Z 2026-03-09T14:30:00Z
            0 0 1 JAN MON        -                2027-01-01T00:00:00Z 2027-01-04T00:00:00Z 2027-01-11T00:00:00Z
            30 2 * * *           America/New_York 2026-03-08T07:00:00Z 2026-03-09T06:30:00Z 2026-03-10T06:30:00Z
            30 1 * * *           America/New_York 2026-11-01T05:30:00Z 2026-11-02T06:30:00Z 2026-11-03T06:30:00Z
            59 23 31 2 *         -                never
            61 * * * *           Component error: Number out of bounds.
            * * * *              expected exactly 5 fields, found 4: [* * * *]
            0 0 0 * * *          expected exactly 5 fields, found 6: [0 0 0 * * *]
            @nonsense            unrecognized descriptor: @nonsense
            @every soon          failed to parse duration @every soon: time: invalid duration "soon"
            hello                expected exactly 5 fields, found 1: [hello]
            a b c d e            Pattern contains illegal characters: CronPattern contains illegal character 'A' in part 'A'
            * * * * *            unknown time zone Mars/Olympus
        "#]].assert_eq(&table);
    }

    #[test]
    fn the_latest() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let latest = |text: &str, first: &str, now: &str| {
            let found = Schedule::parse(text, None).unwrap().latest(time(first), time(now));
            found.map_or("none".to_owned(), |time| time.to_string())
        };
        let table = [
            latest("0 * * * *", "2026-01-01T10:00:00Z", "2026-01-01T13:59:59.9Z"),
            latest("0 * * * *", "2026-01-01T10:00:00Z", "2026-01-01T13:00:00Z"),
            latest("0 * * * *", "2026-01-01T10:00:00Z", "2026-01-01T09:00:00Z"),
            latest("@every 90s", "2026-01-01T10:00:10Z", "2026-01-01T10:05:00Z"),
        ]
        .join("\n");
        expect![[r#"
            2026-01-01T13:00:00Z
            2026-01-01T13:00:00Z
            none
            2026-01-01T10:04:40Z"#]]
        .assert_eq(&table);
    }
}
