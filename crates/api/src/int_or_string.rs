//! Numbers that may be percentages: `maxSurge`, `maxUnavailable`, `minAvailable`.
//!
//! Mirrors apimachinery `pkg/util/intstr/intstr.go`, GetScaledValueFromIntOrPercent, which computes in floating point
//! and so do we not: the result is the same and exact.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use thiserror::Error;

/// Which way a fraction of a percentage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To the next larger whole number (`maxSurge`).
    Up,
    /// To the next smaller whole number (`maxUnavailable`).
    Down,
}

/// The text is neither a number nor a percentage.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage: {0:?}")]
pub struct NotAPercentage(pub String);

/// The number itself, or that percentage of `total`.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Result<i32, NotAPercentage> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent = percentage(value).ok_or_else(|| NotAPercentage(text.clone()))?;
    let product = i64::from(percent) * i64::from(total);
    let scaled = match round {
        Round::Down => product.div_euclid(100),
        Round::Up => -(-product).div_euclid(100),
    };
    Ok(i32::try_from(scaled).unwrap_or(if scaled < 0 { i32::MIN } else { i32::MAX }))
}

/// The number before the `%`, if it is a percentage; one too large to count with is cut.
pub fn percentage(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => {
            let number = text.strip_suffix('%')?;
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            number.parse().ok().or(digits.then_some(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn scales_as_upstream() {
        let cases = [
            ("25%", 10),
            ("25%", 4),
            ("25%", 1),
            ("0%", 7),
            ("100%", 7),
            ("101%", 100),
            ("1%", 0),
            ("33%", 3),
            ("99999999999%", 3),
        ];
        let table: String = cases
            .map(|(text, total)| {
                let value = IntOrString::String(text.to_owned());
                let (up, down) = (scaled(&value, total, Round::Up), scaled(&value, total, Round::Down));
                format!("{text} of {total}: up {}, down {}\n", up.unwrap(), down.unwrap())
            })
            .concat();
        expect![[r#"
            25% of 10: up 3, down 2
            25% of 4: up 1, down 1
            25% of 1: up 1, down 0
            0% of 7: up 0, down 0
            100% of 7: up 7, down 7
            101% of 100: up 101, down 101
            1% of 0: up 0, down 0
            33% of 3: up 1, down 0
            99999999999% of 3: up 64424510, down 64424509
        "#]]
        .assert_eq(&table);
        assert_eq!(scaled(&IntOrString::Int(3), 100, Round::Up), Ok(3));
        for text in ["3", "%", "x%", "1.5%", ""] {
            assert!(scaled(&IntOrString::String(text.to_owned()), 10, Round::Up).is_err(), "{text}");
        }
    }
}
