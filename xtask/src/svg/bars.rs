//! Bars to the left and right of one, on a logarithmic scale.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 420.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 34.0;
const ROW: f64 = 24.0;

/// A ratio, and what it should be.
pub(crate) struct Bar<'a> {
    pub(crate) name: &'a str,
    /// More than 0; a bar to the right if it is more than 1.
    pub(crate) ratio: f64,
    pub(crate) target: Option<f64>,
}

/// Ratios below each other.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) bars: Vec<Bar<'a>>,
}

impl Bars<'_> {
    pub(crate) fn to_svg(&self) -> String {
        let shown = || self.bars.iter().flat_map(|bar| [Some(bar.ratio), bar.target]).flatten();
        let least = shown().fold(1.0, f64::min).log10().floor().min(-1.0);
        let most = shown().fold(1.0, f64::max).log10().ceil().max(1.0);
        let at = |ratio: f64| LEFT + (ratio.log10() - least) / (most - least) * (WIDTH - LEFT - RIGHT);
        let bottom = TOP + ROW * self.bars.len() as f64;
        let height = bottom + BOTTOM;
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let mut put = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(svg, "{text}");
        };
        put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">"
        ));
        put(format_args!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>"));
        put(format_args!("<text x=\"16\" y=\"22\" font-size=\"15\">{}</text>", self.title));
        put(format_args!("<path d=\"M16 36v10\" stroke=\"#d55e00\" stroke-width=\"3\"/>"));
        put(format_args!("<text x=\"24\" y=\"45\">target</text>"));
        for power in least as i32..=most as i32 {
            let (value, colour) = (10_f64.powi(power), if power == 0 { "#888" } else { "#ddd" });
            let (x, y) = (at(value), bottom + 16.0);
            put(format_args!("<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"{colour}\"/>"));
            put(format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{value}</text>"));
        }
        for (nth, bar) in self.bars.iter().enumerate() {
            let y = TOP + ROW * nth as f64;
            let (one, end) = (at(1.0), at(bar.ratio));
            let (x, width) = (one.min(end), (end - one).abs());
            let (name, text) = (bar.name, y + 16.0);
            put(format_args!("<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>", LEFT - 10.0));
            put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\" fill=\"#0072b2\"/>",
                y + 5.0
            ));
            let beyond = one.max(end) + 6.0;
            put(format_args!("<text x=\"{beyond:.1}\" y=\"{text}\">{}</text>", short(bar.ratio)));
            if let Some(target) = bar.target {
                let (x, y) = (at(target), y + 3.0);
                put(format_args!("<path d=\"M{x:.1} {y}v18\" stroke=\"#d55e00\" stroke-width=\"3\"/>"));
            }
        }
        put(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - 16.0,
            height - 4.0,
            self.x
        ));
        put(format_args!("</svg>"));
        svg
    }
}

/// Two digits that count, or all before the point.
fn short(ratio: f64) -> String {
    match ratio {
        r if r >= 10.0 => format!("{r:.0}"),
        r if r >= 0.1 => format!("{r:.2}"),
        r => format!("{r:.3}"),
    }
}
