//! Numbers and names as people read them.

use std::time::Duration;

/// Milliseconds with three decimals below ten, two above.
pub(crate) fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.3}") } else { format!("{ms:.2}") }
}

/// The same for a number of milliseconds.
pub(crate) fn ms(ms: f64) -> String {
    millis(Duration::from_secs_f64(ms / 1e3))
}

/// Milliseconds in at most six characters, for a column of a table; from a thousand seconds on in seconds.
pub(crate) fn cell(ms: f64) -> String {
    match ms {
        // Bounds are below the number that would be rounded to one more digit.
        ..9.9995 => format!("{ms:.3}"),
        ..999.995 => format!("{ms:.2}"),
        ..9999.95 => format!("{ms:.1}"),
        ..999_999.5 => format!("{ms:.0}"),
        _ => format!("{:.0}s", ms / 1e3),
    }
}

/// A whole number in at most ten characters, for a column of a table; from a hundred million on in millions.
pub(crate) fn count_cell(number: u64) -> String {
    if number < 100_000_000 { grouped(number) } else { format!("{} M", grouped(number / 1_000_000)) }
}

/// A node without its scheme, so that a line fits a terminal.
pub(crate) fn without_scheme(target: &str) -> &str {
    target.split_once("://").map_or(target, |(_, rest)| rest)
}

/// A name in at most `width` characters: a longer one lacks its middle, since nodes differ in the beginning and the port.
pub(crate) fn shortened(name: &str, width: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= width {
        return name.to_owned();
    }
    let end = (width - 1) / 3;
    let start = width - 1 - end;
    chars[..start].iter().chain(&['…']).chain(&chars[chars.len() - end..]).collect()
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
    fn figures_fit_their_columns() {
        let cells = [0.0, 9.9994, 9.9996, 999.994, 999.996, 9999.94, 9999.96, 999_999.4, 999_999.6].map(cell);
        let expected = ["0.000", "9.999", "10.00", "999.99", "1000.0", "9999.9", "10000", "999999", "1000s"];
        assert_eq!(cells, expected);
        assert_eq!((count_cell(99_999_999).as_str(), count_cell(1_234_567_890).as_str()), ("99 999 999", "1 234 M"));
    }

    #[test]
    fn long_names_keep_what_tells_them_apart() {
        assert_eq!(shortened("127.0.0.1:8081", 14), "127.0.0.1:8081");
        let pod = |n| shortened(&format!("mesh-{n}.mesh.default.svc.cluster.local:8081"), 24);
        assert_eq!((pod(0).as_str(), pod(0).chars().count()), ("mesh-0.mesh.defa…al:8081", 24));
        assert_ne!(pod(0), pod(1));
    }

    #[test]
    fn a_curve_keeps_its_shape() {
        assert_eq!(sparkline(&[0.0, 7.0, 3.5], 10), "▁█▅");
        assert_eq!(sparkline(&[1.0; 100], 4), "████");
        assert_eq!(sparkline(&[], 4), "");
    }
}
