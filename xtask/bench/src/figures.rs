//! Measured figures, and how they are shown.

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// A part of one.
    Share,
}

/// A measured figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The figure; with several runs their median.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// The figure of each run.
    pub runs: Vec<f64>,
}

impl Figure {
    /// A figure measured once.
    pub fn new(name: &str, value: f64, unit: Unit) -> Figure {
        Figure { name: name.to_owned(), value, unit, runs: vec![value] }
    }

    /// The same under another name.
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Figure {
        Figure { name: rename(&self.name), ..self }
    }
}

/// The medians of runs that measured the same figures.
pub fn medians(runs: Vec<Vec<Figure>>) -> Vec<Figure> {
    let Some(first) = runs.first() else { return Vec::new() };
    let one = |(index, figure): (usize, &Figure)| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.get(index)).map(|figure| figure.value).collect();
        Figure { value: percentile(&values, 50.0), runs: values, ..figure.clone() }
    };
    first.iter().enumerate().map(one).collect()
}

/// The value that `percent` of the values do not exceed (nearest rank).
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// A value as people read it.
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 0.001 => format!("{:.1} µs", value * 1e6),
        Unit::Seconds if value < 0.1 => format!("{:.1} ms", value * 1e3),
        Unit::Seconds if value < 10.0 => format!("{value:.2} s"),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::Bytes if value < 10e6 => format!("{:.1} MB", value / 1e6),
        Unit::Bytes => format!("{:.0} MB", value / 1e6),
        Unit::Count => format!("{value:.0}"),
        Unit::Share => format!("{:.2} %", value * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 50.0, 99.0, 100.0].map(|percent| percentile(&values, percent)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }

    #[test]
    fn values_are_shown_in_fitting_units() {
        let texts = [(0.000_052, Unit::Seconds), (0.0453, Unit::Seconds), (12.84, Unit::Seconds), (1.8e9, Unit::Bytes)];
        assert_eq!(texts.map(|(value, unit)| shown(value, unit)), ["52.0 µs", "45.3 ms", "12.8 s", "1800 MB"]);
    }
}
