//! Sizes and times as people write them.

/// Numbers along D, H, W.
pub fn axes<T: ToString>(axes: [T; 3]) -> String {
    axes.map(|axis| axis.to_string()).join("×")
}

/// Millimetres to two digits, without zeros at the end.
pub fn mm(mm: f64) -> String {
    let text = format!("{mm:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// Minutes and seconds, or hours and minutes.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
