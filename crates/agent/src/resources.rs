//! Quantities as a node needs them: whole thousandths, whole bytes.
//!
//! Pure. Reads the notation of `k8s.io/apimachinery/pkg/api/resource`; what cannot be read is `None`, and the caller
//! says which field it was.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Container, apimachinery::pkg::api::resource::Quantity};

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 3)
}

/// Whole units, rounded up.
pub fn whole(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 0)
}

/// What a container asks for at least.
pub fn request<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    let resources = container.resources.as_ref()?;
    of(&resources.requests, name).or_else(|| of(&resources.limits, name))
}

/// What a container may use at most.
pub fn limit<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    of(&container.resources.as_ref()?.limits, name)
}

fn of<'a>(list: &'a Option<BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    list.as_ref()?.get(name)
}

/// `text * 10^digits`, rounded up.
fn scaled(text: &str, digits: u32) -> Option<i64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (mantissa, decimals) = decimal(number)?;
    let (power, binary) = exponent(suffix)?;
    let shift = i64::from(digits) + power - decimals;
    let product = mantissa.checked_mul(1_i128.checked_shl(binary)?)?;
    let ten = 10_i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    let value = if shift >= 0 {
        product.checked_mul(ten)?
    } else {
        product.div_euclid(ten) + i128::from(product.rem_euclid(ten) != 0)
    };
    i64::try_from(value).ok()
}

fn decimal(number: &str) -> Option<(i128, i64)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mantissa = format!("{whole}{fraction}").parse().ok()?;
    Some((mantissa, i64::try_from(fraction.len()).ok()?))
}

/// Power of ten and of two that a suffix stands for.
fn exponent(suffix: &str) -> Option<(i64, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse().ok()?, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        let cases = [
            ("100m", 100),
            ("1", 1000),
            ("0.5", 500),
            ("1.5", 1500),
            ("2e3", 2_000_000),
            ("1u", 1),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(&Quantity(text.into())), Some(expected), "{text}");
        }
        assert_eq!(whole(&Quantity("128Mi".into())), Some(134_217_728));
        assert_eq!(whole(&Quantity("nonsense".into())), None);
    }
}
