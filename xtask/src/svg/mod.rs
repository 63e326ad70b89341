//! Charts as SVG, readable on light and dark pages: lines here, bars in `bars.rs`. The same chart gives the same bytes.

mod bars;

pub(crate) use bars::{Bar, Bars};

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// A line through points, in the order given.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How far numbers are apart, on both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Their difference; the vertical axis begins at 0.
    Linear,
    /// Their ratio; both axes go from one power of ten to another.
    Logarithmic,
}

/// Lines over a common grid.
pub(crate) struct Chart<'a> {
    pub(crate) title: String,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) scale: Scale,
    pub(crate) lines: Vec<Line<'a>>,
}

/// Places on an axis from 0 to 1, and what is written there.
struct Axis {
    min: f64,
    max: f64,
    scale: Scale,
    ticks: Vec<f64>,
}

impl Axis {
    fn linear(min: f64, max: f64, ticks: Vec<f64>) -> Axis {
        Axis { min, max, scale: Scale::Linear, ticks }
    }

    fn logarithmic(values: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = values.clone().fold(f64::MAX, f64::min).log10().floor() as i32;
        let most = (values.fold(f64::MIN, f64::max).log10().ceil() as i32).max(least + 1);
        let ticks = (least..=most).map(|power| 10_f64.powi(power)).collect();
        Axis { min: f64::from(least), max: f64::from(most), scale: Scale::Logarithmic, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Logarithmic { value.log10() } else { value };
        (value - self.min) / (self.max - self.min)
    }

    fn label(&self, value: f64) -> String {
        if self.scale == Scale::Logarithmic && value >= 1.0 {
            return crate::ui::thousands(value.round() as u64);
        }
        format!("{value}")
    }
}

impl Chart<'_> {
    fn axes(&self) -> [Axis; 2] {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if self.scale == Scale::Logarithmic {
            return [
                Axis::logarithmic(points().map(|point| point.0)),
                Axis::logarithmic(points().map(|point| point.1)),
            ];
        }
        let x_min = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let x_max = points().map(|point| point.0).fold(f64::MIN, f64::max);
        let y_most = points().map(|point| point.1).fold(0.0, f64::max);
        let y_step = if y_most > 4.0 { 1.0 } else { 0.5 };
        let y_max = (y_most / y_step).ceil() * y_step;
        let y_ticks = (0..=(y_max / y_step).round() as u32).map(|tick| f64::from(tick) * y_step).collect();
        let fours = std::iter::successors(Some((x_min / 4.0).ceil() * 4.0), |x| Some(x + 4.0));
        let x_ticks = fours.take_while(|x| *x <= x_max).collect();
        [Axis::linear(x_min, x_max, x_ticks), Axis::linear(0.0, y_max, y_ticks)]
    }

    pub(crate) fn to_svg(&self) -> String {
        let [x_axis, y_axis] = self.axes();
        let at_x = |x: f64| LEFT + x_axis.at(x) * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - y_axis.at(y) * (HEIGHT - TOP - BOTTOM);

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
        for &value in &y_axis.ticks {
            let (y, right) = (at_y(value), WIDTH - RIGHT);
            let colour = if value == 1.0 && self.scale == Scale::Linear { "#888" } else { "#ddd" };
            put(format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"{colour}\"/>"));
            put(format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                y_axis.label(value)
            ));
        }
        for &x in &x_axis.ticks {
            let (at, y, label) = (at_x(x), HEIGHT - BOTTOM + 18.0, x_axis.label(x));
            put(format_args!("<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"));
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
