//! Numbers as people read them.

use std::time::Duration;

/// Milliseconds with three decimals below ten, two above.
pub(crate) fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.3}") } else { format!("{ms:.2}") }
}

/// A whole number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `part` of `whole` in percent; zero if there is no whole.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// A curve in one line of text, `width` characters wide, from zero to its highest value.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.min(values.len());
    let highest = values.iter().copied().fold(0.0, f64::max);
    let column = |at: usize| {
        let part = &values[at * values.len() / width..((at + 1) * values.len() / width).max(1)];
        let mean = part.iter().sum::<f64>() / part.len().max(1) as f64;
        LEVELS[if highest > 0.0 { ((mean / highest * 7.0).round() as usize).min(7) } else { 0 }]
    };
    (0..width).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234), "1 234");
        assert_eq!(grouped(123_456_789), "123 456 789");
        assert_eq!(millis(Duration::from_micros(1234)), "1.234");
        assert_eq!(millis(Duration::from_micros(12_345)), "12.35");
        assert!(percent(1, 0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_curve_keeps_its_shape() {
        assert_eq!(sparkline(&[0.0, 7.0, 3.5], 10), "▁█▅");
        assert_eq!(sparkline(&[1.0; 100], 4), "████");
        assert_eq!(sparkline(&[], 4), "");
    }
}
