//! When a CronJob is due: the grammar of schedules and time zones, and the times they stand for.
//!
//! The grammar is that of upstream's library (`robfig/cron` v3, `parser.go`) and a little more that `croner` knows. Each
//! field is read here and put into plain numbers; `croner` finds the times. A schedule without a time zone is one in UTC.
//! The time zones are compiled in. Reads no clock: the times are arguments.

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
        let words = if text.starts_with('@') { described(text) } else { Some(text) };
        let Some(words) = words else { return wrong(format!("unrecognized descriptor: {text}")) };
        let fields: Vec<&str> = words.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return wrong(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let plain = FIELDS.iter().zip(fields).map(|(field, text)| field.plain(text));
        let plain: Vec<String> = plain.collect::<Result<_, _>>().map_err(ScheduleError::Pattern)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&plain.join(" ")).map_err(|error| ScheduleError::Pattern(error.to_string()))?;
        Ok(Pattern::Cron(Box::new(cron)))
    }
}

/// The fields that a word stands for (upstream: parseDescriptor).
fn described(word: &str) -> Option<&'static str> {
    Some(match word {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return None,
    })
}

/// One of the five: its least and its greatest number, and the names that stand for numbers from the least on.
struct Field {
    least: usize,
    greatest: usize,
    names: &'static [&'static str],
    /// Letters of `croner`'s grammar that are left to it: `L` and `#` of a day of the week, `L` and `W` of one of the month.
    croners: &'static [char],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SUNDAY: usize = 7;

const FIELDS: [Field; 5] = [
    Field { least: 0, greatest: 59, names: &[], croners: &[] },
    Field { least: 0, greatest: 23, names: &[], croners: &[] },
    Field { least: 1, greatest: 31, names: &[], croners: &['L', 'W'] },
    Field { least: 1, greatest: 12, names: MONTHS, croners: &[] },
    Field { least: 0, greatest: 6, names: DAYS, croners: &['L', '#'] },
];

impl Field {
    /// The list with every item in numbers. One star makes all of it a star: of the two days that the other one may
    /// choose (upstream: getField, starBit).
    fn plain(&self, list: &str) -> Result<String, String> {
        let items = list.split(',').filter(|item| !item.is_empty()).map(|item| self.item(item));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        match items.iter().any(|item| item == "*") {
            true => Ok("*".to_owned()),
            false if items.is_empty() => Err(format!("nothing is listed: {list}")),
            false => Ok(items.join(",")),
        }
    }

    /// `number | number "-" number [ "/" number ]`, where `N/step` means `N-greatest/step` (upstream: getRange).
    fn item(&self, item: &str) -> Result<String, String> {
        if item.to_ascii_uppercase().contains(self.croners) {
            return Ok(item.to_owned());
        }
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        if step.is_some_and(|step| step.contains('/')) {
            return Err(format!("too many slashes: {item}"));
        }
        let (low, high) = range.split_once('-').map_or((range, None), |(low, high)| (low, Some(high)));
        if high.is_some_and(|high| high.contains('-')) {
            return Err(format!("too many hyphens: {item}"));
        }
        let by = step.map_or(Ok(1), integer)?;
        let (start, end) = match (low, high) {
            ("*" | "?", _) if by == 1 => return Ok("*".to_owned()),
            ("*" | "?", _) => (self.least, self.greatest),
            (low, Some(high)) => (self.number(low)?, self.last(high)?),
            (low, None) if step.is_some() => (self.number(low)?, self.greatest),
            (low, None) => (self.number(low)?, self.number(low)?),
        };
        self.bounded(start, end, by).map_err(|why| format!("{why}: {item}"))?;
        Ok(match by > end - start {
            true => start.to_string(),
            false => format!("{start}-{end}/{by}"),
        })
    }

    fn bounded(&self, start: usize, end: usize, step: usize) -> Result<(), String> {
        let greatest = if self.names == DAYS { SUNDAY } else { self.greatest };
        if start < self.least {
            Err(format!("beginning of range ({start}) below minimum ({})", self.least))
        } else if end > greatest {
            Err(format!("end of range ({end}) above maximum ({greatest})"))
        } else if start > end {
            Err(format!("beginning of range ({start}) beyond end of range ({end})"))
        } else if step == 0 {
            Err("step of range should be a positive number".to_owned())
        } else {
            Ok(())
        }
    }

    fn number(&self, text: &str) -> Result<usize, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        named.map_or_else(|| integer(text), |place| Ok(place + self.least))
    }

    /// The end of a range: Sunday ends a week.
    fn last(&self, text: &str) -> Result<usize, String> {
        if text.eq_ignore_ascii_case("sun") && self.names == DAYS { Ok(SUNDAY) } else { self.number(text) }
    }
}

fn integer(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
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
            61 * * * *           end of range (61) above maximum (59): 61
            * * * *              expected exactly 5 fields, found 4: [* * * *]
            0 0 0 * * *          expected exactly 5 fields, found 6: [0 0 0 * * *]
            @nonsense            unrecognized descriptor: @nonsense
            @every soon          failed to parse duration @every soon: time: invalid duration "soon"
            hello                expected exactly 5 fields, found 1: [hello]
            a b c d e            failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax
            * * * * *            unknown time zone Mars/Olympus
        "#]]
        .assert_eq(&table);
    }

    /// Upstream's grammar: in every field, with names, and with the words that stand for fields.
    #[test]
    fn fields() {
        let from = "2026-03-07T10:07:30.5Z";
        let texts = "0/15 * * * *|5/15 * * * *|7-40/30 * * * *|*/45 * * * *|? * * * *|1,,31/20 * * * *|50/100 * * * *\
            |0 20/2 * * *|0 5/9,23 * * *|0 ?/12 * * *|0 0 28/2 * *|0 0 ? * MON|0 0 */10 * MON|0 0 *,5 * MON|0 0 */1 * MON\
            |0 0 1 9/2 *|0 0 1 oct/1 *|0 0 1 Mar-jul/3,DEC *|0 0 1 ? *|0 0 * * 4/2|0 0 * * wed/2|0 0 * * Tue-THU\
            |0 0 * * 7|0 0 * * 5-7|0 0 * * FRI-SUN|0 0 * * 0,7|0 0 * * 0-7/7|0 0 * * SUN/3|0 0 L * *|0 0 * * FRI#2|0 0 15W * *\
            |@yearly|@annually|@monthly|@weekly|@daily|@midnight|@hourly\
            |@Daily|0/0 * * * *|*/0 * * * *|60/5 * * * *|5-60 * * * *|9-5 * * * *|1-2-3 * * * *|1/2/3 * * * *|/5 * * * *|-5 * * * *\
            |MON * * * *|* 24 * * *|* * 0 * *|* * 32/2 * *|* * * 13 *|* * * JANFEB *|* * * * 8|* * * * 7/2|* * * * SAT-FRI|, * * * *";
        let table: String = texts.split('|').map(|text| shown(text, None, from)).collect();
        expect![[r#"
            0/15 * * * *         -                2026-03-07T10:15:00Z 2026-03-07T10:30:00Z 2026-03-07T10:45:00Z
            5/15 * * * *         -                2026-03-07T10:20:00Z 2026-03-07T10:35:00Z 2026-03-07T10:50:00Z
            7-40/30 * * * *      -                2026-03-07T10:37:00Z 2026-03-07T11:07:00Z 2026-03-07T11:37:00Z
            */45 * * * *         -                2026-03-07T10:45:00Z 2026-03-07T11:00:00Z 2026-03-07T11:45:00Z
            ? * * * *            -                2026-03-07T10:08:00Z 2026-03-07T10:09:00Z 2026-03-07T10:10:00Z
            1,,31/20 * * * *     -                2026-03-07T10:31:00Z 2026-03-07T10:51:00Z 2026-03-07T11:01:00Z
            50/100 * * * *       -                2026-03-07T10:50:00Z 2026-03-07T11:50:00Z 2026-03-07T12:50:00Z
            0 20/2 * * *         -                2026-03-07T20:00:00Z 2026-03-07T22:00:00Z 2026-03-08T20:00:00Z
            0 5/9,23 * * *       -                2026-03-07T14:00:00Z 2026-03-07T23:00:00Z 2026-03-08T05:00:00Z
            0 ?/12 * * *         -                2026-03-07T12:00:00Z 2026-03-08T00:00:00Z 2026-03-08T12:00:00Z
            0 0 28/2 * *         -                2026-03-28T00:00:00Z 2026-03-30T00:00:00Z 2026-04-28T00:00:00Z
            0 0 ? * MON          -                2026-03-09T00:00:00Z 2026-03-16T00:00:00Z 2026-03-23T00:00:00Z
            0 0 */10 * MON       -                2026-03-09T00:00:00Z 2026-03-11T00:00:00Z 2026-03-16T00:00:00Z
            0 0 *,5 * MON        -                2026-03-09T00:00:00Z 2026-03-16T00:00:00Z 2026-03-23T00:00:00Z
            0 0 */1 * MON        -                2026-03-09T00:00:00Z 2026-03-16T00:00:00Z 2026-03-23T00:00:00Z
            0 0 1 9/2 *          -                2026-09-01T00:00:00Z 2026-11-01T00:00:00Z 2027-09-01T00:00:00Z
            0 0 1 oct/1 *        -                2026-10-01T00:00:00Z 2026-11-01T00:00:00Z 2026-12-01T00:00:00Z
            0 0 1 Mar-jul/3,DEC * -                2026-06-01T00:00:00Z 2026-12-01T00:00:00Z 2027-03-01T00:00:00Z
            0 0 1 ? *            -                2026-04-01T00:00:00Z 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
            0 0 * * 4/2          -                2026-03-12T00:00:00Z 2026-03-14T00:00:00Z 2026-03-19T00:00:00Z
            0 0 * * wed/2        -                2026-03-11T00:00:00Z 2026-03-13T00:00:00Z 2026-03-18T00:00:00Z
            0 0 * * Tue-THU      -                2026-03-10T00:00:00Z 2026-03-11T00:00:00Z 2026-03-12T00:00:00Z
            0 0 * * 7            -                2026-03-08T00:00:00Z 2026-03-15T00:00:00Z 2026-03-22T00:00:00Z
            0 0 * * 5-7          -                2026-03-08T00:00:00Z 2026-03-13T00:00:00Z 2026-03-14T00:00:00Z
            0 0 * * FRI-SUN      -                2026-03-08T00:00:00Z 2026-03-13T00:00:00Z 2026-03-14T00:00:00Z
            0 0 * * 0,7          -                2026-03-08T00:00:00Z 2026-03-15T00:00:00Z 2026-03-22T00:00:00Z
            0 0 * * 0-7/7        -                2026-03-08T00:00:00Z 2026-03-15T00:00:00Z 2026-03-22T00:00:00Z
            0 0 * * SUN/3        -                2026-03-08T00:00:00Z 2026-03-11T00:00:00Z 2026-03-14T00:00:00Z
            0 0 L * *            -                2026-03-31T00:00:00Z 2026-04-30T00:00:00Z 2026-05-31T00:00:00Z
            0 0 * * FRI#2        -                2026-03-13T00:00:00Z 2026-04-10T00:00:00Z 2026-05-08T00:00:00Z
            0 0 15W * *          -                2026-03-16T00:00:00Z 2026-04-15T00:00:00Z 2026-05-15T00:00:00Z
            @yearly              -                2027-01-01T00:00:00Z 2028-01-01T00:00:00Z 2029-01-01T00:00:00Z
            @annually            -                2027-01-01T00:00:00Z 2028-01-01T00:00:00Z 2029-01-01T00:00:00Z
            @monthly             -                2026-04-01T00:00:00Z 2026-05-01T00:00:00Z 2026-06-01T00:00:00Z
            @weekly              -                2026-03-08T00:00:00Z 2026-03-15T00:00:00Z 2026-03-22T00:00:00Z
            @daily               -                2026-03-08T00:00:00Z 2026-03-09T00:00:00Z 2026-03-10T00:00:00Z
            @midnight            -                2026-03-08T00:00:00Z 2026-03-09T00:00:00Z 2026-03-10T00:00:00Z
            @hourly              -                2026-03-07T11:00:00Z 2026-03-07T12:00:00Z 2026-03-07T13:00:00Z
            @Daily               unrecognized descriptor: @Daily
            0/0 * * * *          step of range should be a positive number: 0/0
            */0 * * * *          step of range should be a positive number: */0
            60/5 * * * *         beginning of range (60) beyond end of range (59): 60/5
            5-60 * * * *         end of range (60) above maximum (59): 5-60
            9-5 * * * *          beginning of range (9) beyond end of range (5): 9-5
            1-2-3 * * * *        too many hyphens: 1-2-3
            1/2/3 * * * *        too many slashes: 1/2/3
            /5 * * * *           failed to parse int from : strconv.Atoi: parsing "": invalid syntax
            -5 * * * *           failed to parse int from : strconv.Atoi: parsing "": invalid syntax
            MON * * * *          failed to parse int from MON: strconv.Atoi: parsing "MON": invalid syntax
            * 24 * * *           end of range (24) above maximum (23): 24
            * * 0 * *            beginning of range (0) below minimum (1): 0
            * * 32/2 * *         beginning of range (32) beyond end of range (31): 32/2
            * * * 13 *           end of range (13) above maximum (12): 13
            * * * JANFEB *       failed to parse int from JANFEB: strconv.Atoi: parsing "JANFEB": invalid syntax
            * * * * 8            end of range (8) above maximum (7): 8
            * * * * 7/2          beginning of range (7) beyond end of range (6): 7/2
            * * * * SAT-FRI      beginning of range (6) beyond end of range (5): SAT-FRI
            , * * * *            nothing is listed: ,
        "#]]
        .assert_eq(&table);
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
