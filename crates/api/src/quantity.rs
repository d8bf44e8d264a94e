//! Quantities: `100m`, `1.5Gi`, `12e6`, held exactly and printed in Kubernetes' canonical form.
//!
//! Mirrors apimachinery `pkg/api/resource/quantity.go`. Never uses floating point: a value is a whole number of
//! nano-units, so comparing and adding cannot lose anything. Finer fractions are rounded away from zero when parsed.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// Nano-units in one.
const NANOS: i128 = 1_000_000_000;
/// Nano-units in one milli-unit.
const NANOS_PER_MILLI: i128 = 1_000_000;
/// The largest binary quantity; larger ones are cut to it, as upstream does.
const LARGEST_BINARY: i128 = i64::MAX as i128 * NANOS;
/// The largest power of ten (of nano-units) that an `i128` holds.
const LARGEST_POWER: i32 = 38;

/// Why a text is not a quantity. The wording is upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseError {
    /// It does not look like a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is missing or too large.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is none of Kubernetes'.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `n u m k M G T P E`.
    #[default]
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3`, `E-6`.
    Exponent,
}

/// An exact amount of a resource. Equality and order look at the value only, not at how it is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    nanos: i128,
    form: Form,
}

impl Amount {
    /// Nothing of it.
    pub const ZERO: Self = Self { nanos: 0, form: Form::Decimal };

    /// A whole number, written in decimal form.
    pub fn whole(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS, form: Form::Decimal }
    }

    /// So many thousandths, written in decimal form.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * NANOS_PER_MILLI, form: Form::Decimal }
    }

    /// So many billionths, written in decimal form.
    pub fn from_nano(nano: i64) -> Self {
        Self { nanos: i128::from(nano), form: Form::Decimal }
    }

    /// A number of bytes, written in binary form.
    pub fn bytes(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS, form: Form::Binary }
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        if number.is_empty() {
            return Err(ParseError::Format);
        }
        let (unit, form) = unit(suffix)?;
        let (digits, decimals) = digits(number)?;
        let nanos = match unit {
            Unit::PowerOfTen(power) => shift_ten(digits, power.saturating_sub(decimals).saturating_add(9))?,
            Unit::PowerOfTwo(power) => shift_two(digits, power, 9 - decimals).min(LARGEST_BINARY),
        };
        let form = if form == Form::Binary && nanos < NANOS && nanos > 0 { Form::Decimal } else { form };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// Reads the quantity of an object that the door let in. Texts that are no quantity count as nothing: validation
    /// refuses them before anything is decided on them.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// As Kubernetes stores it.
    pub fn quantity(self) -> Quantity {
        Quantity(self.to_string())
    }

    /// The value in whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, NANOS))
    }

    /// The value in thousandths, rounded away from zero.
    pub fn milli(self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, NANOS_PER_MILLI))
    }

    /// Rounds away from zero to whole thousandths: what Kubernetes keeps of resource lists.
    pub fn round_up_to_milli(self) -> Self {
        let milli = divide_away_from_zero(self.nanos, NANOS_PER_MILLI);
        Self { nanos: milli.saturating_mul(NANOS_PER_MILLI), form: self.form }
    }

    /// The same amount, written in binary form where that loses nothing.
    pub fn in_binary(self) -> Self {
        Self { form: Form::Binary, ..self }
    }

    /// The value in units, as near as a float comes to it.
    pub fn approximately(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// True for nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// True for less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// True when it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    fn effective_form(self) -> Form {
        // A binary suffix is for whole numbers; smaller ones would confuse, and fractions would be lost.
        let unfit = self.nanos.abs() < 1024 * NANOS || !self.is_whole();
        if self.form == Form::Binary && unfit { Form::Decimal } else { self.form }
    }
}

enum Unit {
    PowerOfTen(i32),
    PowerOfTwo(u32),
}

fn unit(suffix: &str) -> Result<(Unit, Form), ParseError> {
    let decimal = |power| Ok((Unit::PowerOfTen(power), Form::Decimal));
    let binary = |power| Ok((Unit::PowerOfTwo(power), Form::Binary));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Result<(Unit, Form), ParseError> {
    let letters = suffix.find(|c: char| !"eEinumkKMGTP".contains(c)).unwrap_or(suffix.len());
    let (letters, number) = suffix.split_at(letters);
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    match (letters, number.parse::<i32>()) {
        ("e" | "E", Ok(power)) => Ok((Unit::PowerOfTen(power), Form::Exponent)),
        _ => Err(ParseError::Suffix),
    }
}

/// All digits as one number, and how many of them follow the point. Digits that are finer than a nano-unit in every
/// form only matter in that there are some: they round up.
fn digits(number: &str) -> Result<(i128, i32), ParseError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(ParseError::Number);
    }
    let fraction = fraction.trim_end_matches('0');
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value =
            value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0'))).ok_or(ParseError::Number)?;
    }
    let decimals = i32::try_from(fraction.len()).map_err(|_| ParseError::Number)?;
    Ok((value, decimals))
}

fn shift_ten(digits: i128, power: i32) -> Result<i128, ParseError> {
    if digits == 0 {
        return Ok(0);
    }
    if power < -LARGEST_POWER {
        return Ok(1);
    }
    if power > LARGEST_POWER {
        return Err(ParseError::Number);
    }
    let factor = 10_i128.pow(power.unsigned_abs());
    if power < 0 {
        Ok(divide_away_from_zero(digits, factor))
    } else {
        digits.checked_mul(factor).ok_or(ParseError::Number)
    }
}

/// Multiplies before it rounds, so that a rounding error is not multiplied; amounts too large for that are capped
/// anyway.
fn shift_two(digits: i128, power: u32, ten: i32) -> i128 {
    match digits.checked_mul(1 << power) {
        Some(product) => shift_ten(product, ten).unwrap_or(LARGEST_BINARY),
        None => shift_ten(digits, ten).ok().and_then(|nanos| nanos.checked_mul(1 << power)).unwrap_or(LARGEST_BINARY),
    }
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match value % by {
        0 => quotient,
        rest => quotient + rest.signum(),
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let form = self.effective_form();
        if form == Form::Binary {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mantissa, step) = strip(self.nanos / NANOS, 1024, SUFFIXES.len() - 1);
            return write!(f, "{mantissa}{}", SUFFIXES[step]);
        }
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let (mantissa, step) = strip(self.nanos, 1000, SUFFIXES.len() - 1);
        match (form, step) {
            (Form::Exponent, 3) => write!(f, "{mantissa}"),
            (Form::Exponent, step) => write!(f, "{mantissa}e{}", 3 * step as i64 - 9),
            (_, step) => write!(f, "{mantissa}{}", SUFFIXES[step]),
        }
    }
}

/// Divides by `factor` as long as nothing is left over, at most `limit` times.
fn strip(mut value: i128, factor: i128, limit: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < limit && value % factor == 0 {
        value /= factor;
        steps += 1;
    }
    (value, steps)
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        if self.nanos == 0 {
            self.form = other.form;
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        if self.nanos == 0 {
            self.form = other.form;
        }
        self.nanos = self.nanos.saturating_sub(other.nanos);
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let texts = "0 0n 0Ki 1 1000 1000m 1500m 76.764Ki 9.048449500324Ti 0.1 1.5 100m 1e3 12e6 1E 1Ei 1.5Gi 1Gi 1024Mi 1023 1024 0.5Ki 1.5Ki 0.0001Ki \
                     100000 -1500m +5 05 .5 5. 1e-3 3.2e-10 0.0000000001 1E3 8Ei 10Ei 1000Ki 1025Ki 2048Ki 0.1Ti 123456789n 1k 1M 1G 1T 1P 99999P";
        let table: String =
            texts.split_whitespace().map(|text| format!("{text} -> {}\n", Amount::parse(text).unwrap())).collect();
        expect![[r#"
            0 -> 0
            0n -> 0
            0Ki -> 0
            1 -> 1
            1000 -> 1k
            1000m -> 1
            1500m -> 1500m
            76.764Ki -> 78606336m
            9.048449500324Ti -> 9948875438950175079400n
            0.1 -> 100m
            1.5 -> 1500m
            100m -> 100m
            1e3 -> 1e3
            12e6 -> 12e6
            1E -> 1E
            1Ei -> 1Ei
            1.5Gi -> 1536Mi
            1Gi -> 1Gi
            1024Mi -> 1Gi
            1023 -> 1023
            1024 -> 1024
            0.5Ki -> 512
            1.5Ki -> 1536
            0.0001Ki -> 102400u
            100000 -> 100k
            -1500m -> -1500m
            +5 -> 5
            05 -> 5
            .5 -> 500m
            5. -> 5
            1e-3 -> 1e-3
            3.2e-10 -> 1e-9
            0.0000000001 -> 1n
            1E3 -> 1e3
            8Ei -> 9223372036854775807
            10Ei -> 9223372036854775807
            1000Ki -> 1000Ki
            1025Ki -> 1025Ki
            2048Ki -> 2Mi
            0.1Ti -> 109951162777600m
            123456789n -> 123456789n
            1k -> 1k
            1M -> 1M
            1G -> 1G
            1T -> 1T
            1P -> 1P
            99999P -> 99999P
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn refused_texts() {
        let texts = [
            "", "-", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", "1e3x", ".",
            "1e400", "1 Gi",
        ];
        let table: String = texts.map(|text| format!("{text:?}: {:?}\n", Amount::parse(text).unwrap_err())).concat();
        expect![[r#"
            "": Format
            "-": Format
            "1.1.M": Number
            "1+1.0M": Format
            "0.1mi": Suffix
            "0.1am": Format
            "aoeu": Format
            ".5i": Suffix
            "1i": Suffix
            "-3.01i": Suffix
            "-3.01e-": Suffix
            "1e3x": Format
            ".": Number
            "1e400": Number
            "1 Gi": Format
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn values_round_away_from_zero() {
        let read = |text: &str| Amount::parse(text).unwrap();
        assert_eq!((read("1.2").value(), read("-1.2").value(), read("1u").milli()), (2, -2, 1));
        assert_eq!(read("100m").milli(), 100);
        assert_eq!(read("1Gi").value(), 1 << 30);
        assert_eq!(read("1000E").value(), i64::MAX);
        assert_eq!(read("1u").round_up_to_milli(), read("1m"));
    }

    #[test]
    fn sums_keep_the_left_form() {
        let read = |text: &str| Amount::parse(text).unwrap();
        assert_eq!((read("1Gi") + read("1G")).to_string(), "2073741824");
        assert_eq!((read("1Gi") + read("1024Mi")).to_string(), "2Gi");
        assert_eq!((read("100m") + read("1")).to_string(), "1100m");
        assert_eq!((Amount::ZERO + read("1Ki")).to_string(), "1Ki");
        assert_eq!((read("1") - read("1.5")).to_string(), "-500m");
    }

    proptest! {
        #[test]
        fn printing_and_reading_again_is_exact(digits in 0u64.., suffix in "(n|u|m|k|M|G|T|Ki|Mi|Gi|e3|e-6)?") {
            if let Ok(amount) = Amount::parse(&format!("{digits}{suffix}")) {
                let printed = amount.to_string();
                let again = Amount::parse(&printed).unwrap();
                prop_assert_eq!(amount, again);
                prop_assert_eq!(printed, again.to_string());
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = Amount::parse(&text);
        }
    }
}
