//! What long commands print: one line a step, with a mark and how long it took.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A result of a step, with what to say about it.
pub type Said<T> = Result<(T, String)>;

/// Runs a step and prints its outcome.
pub async fn step<T>(name: &str, work: impl Future<Output = Said<T>>) -> Result<T> {
    announce(name);
    let start = Instant::now();
    let outcome = work.await;
    finish(name, start.elapsed(), outcome)
}

/// Runs a step that needs no runtime.
pub fn step_now<T>(name: &str, work: impl FnOnce() -> Said<T>) -> Result<T> {
    announce(name);
    let start = Instant::now();
    let outcome = work();
    finish(name, start.elapsed(), outcome)
}

/// On a terminal a step is shown while it runs; elsewhere only its outcome is.
fn announce(name: &str) {
    if io::stdout().is_terminal() {
        print!("  … {name}\r");
        // Only what is seen suffers if the terminal is gone.
        drop(io::stdout().flush());
    }
}

fn finish<T>(name: &str, took: Duration, outcome: Said<T>) -> Result<T> {
    match outcome {
        Ok((value, said)) => {
            println!("  ✓ {name:<24} {:>8}  {said}", seconds(took));
            Ok(value)
        }
        Err(error) => {
            println!("  ✗ {name:<24} {:>8}  {error:#}", seconds(took));
            Err(error)
        }
    }
}

/// A further line under a step.
pub fn detail(text: impl Display) {
    println!("    {text}");
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s < 1.0 { format!("{:.0} ms", s * 1e3) } else { format!("{s:.1} s") }
}

/// A number with separated thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bar with rate and time left; invisible where there is no terminal.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = format!("    {{bar:32}} {{human_pos}}/{{human_len}} {what}  {{per_sec}}  {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(seconds(Duration::from_micros(1_500)), "2 ms");
        assert_eq!(seconds(Duration::from_millis(1_540)), "1.5 s");
    }
}
