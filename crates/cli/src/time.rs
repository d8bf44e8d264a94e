//! Ages and durations in Go's words.
//!
//! Mirrors apimachinery `pkg/util/duration/duration.go` (`HumanDuration`) and Go's `time.ParseDuration`.

use std::time::Duration;

use jiff::Timestamp;

/// `5m3s` between a timestamp and now; `<unknown>` without one.
pub fn age(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human(Timestamp::now().as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds since a timestamp; nothing without one.
pub fn since(timestamp: &str) -> Option<i64> {
    timestamp.parse::<Timestamp>().ok().map(|then| Timestamp::now().as_second() - then.as_second())
}

/// A number of seconds as kubectl shows ages.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `90`, `90s`, `1m30s`, `1h`: a duration; nothing if it cannot be understood.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|letter: char| letter == '.' || letter.is_ascii_digit())
            .map_or(rest.len(), |length| end + length);
        let unit = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// A timestamp as `describe` prints it: `Mon, 02 Jan 2006 15:04:05 +0000`.
pub fn long(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => then.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        Err(_) => "<unset>".into(),
    }
}
