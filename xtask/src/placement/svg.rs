//! Line charts as SVG, readable on light and dark pages.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// A line through points, in the order given.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) colour: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a common grid. The vertical axis begins at 0.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
}

impl Chart {
    pub(super) fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_min = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let x_max = points().map(|point| point.0).fold(f64::MIN, f64::max);
        let y_most = points().map(|point| point.1).fold(0.0, f64::max);
        let y_step = if y_most > 4.0 { 1.0 } else { 0.5 };
        let y_max = (y_most / y_step).ceil() * y_step;
        let at_x = |x: f64| LEFT + (x - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM);

        let mut svg = String::new();
        // Writing to a string cannot fail.
        let mut put = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(svg, "{text}");
        };
        put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">"
        ));
        put(format_args!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"));
        put(format_args!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", self.title));
        for (nth, line) in self.lines.iter().enumerate() {
            let x = LEFT + 165.0 * nth as f64;
            let colour = line.colour;
            put(format_args!("<path d=\"M{x} 42h20\" stroke=\"{colour}\" stroke-width=\"2.5\"/>"));
            put(format_args!("<text x=\"{}\" y=\"46\">{}</text>", x + 26.0, line.name));
        }
        for tick in 0..=(y_max / y_step).round() as u32 {
            let value = f64::from(tick) * y_step;
            let (y, right) = (at_y(value), WIDTH - RIGHT);
            let colour = if value == 1.0 { "#888" } else { "#ddd" };
            put(format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"{colour}\"/>"));
            put(format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 8.0,
                y + 4.0
            ));
        }
        let mut x = (x_min / 4.0).ceil() * 4.0;
        while x <= x_max {
            let y = HEIGHT - BOTTOM + 18.0;
            put(format_args!("<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"middle\">{x}</text>", at_x(x)));
            x += 4.0;
        }
        put(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 8.0,
            self.x
        ));
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        put(format_args!(
            "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y
        ));
        for line in self.lines.iter().rev() {
            let points: Vec<String> =
                line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y))).collect();
            put(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\" stroke-linejoin=\"round\"/>",
                points.join(" "),
                line.colour
            ));
        }
        put(format_args!("</svg>"));
        svg
    }
}
