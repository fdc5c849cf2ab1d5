//! Charts as SVG: axes, lines and points, each with a title and a description that can be read aloud.

use std::fmt::Write as _;

use super::escape;

/// The size of a chart, and the margins in which its axes are written.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 88.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// Colours of series, and patterns of their lines.
const COLOURS: usize = 8;

/// The colour of a style and the pattern of its line. The first ones differ in both, so that they differ on paper too.
fn look(style: usize) -> (usize, usize) {
    let (colour, turn) = (style % COLOURS, style / COLOURS);
    (colour, (colour + turn) % COLOURS)
}

/// The height of a row of intervals, and where their bars begin.
const ROW: f64 = 26.0;
const NAMES: f64 = 240.0;

/// How numbers lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// One axis.
#[derive(Debug)]
pub(super) struct Axis {
    label: String,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for all of `values` (and 0, if linear), whose ticks are written by `format`.
    pub(super) fn over(
        label: &str,
        scale: Scale,
        values: impl Iterator<Item = f64>,
        format: impl Fn(f64) -> String,
    ) -> Self {
        let usable = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let (low, high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high, places) = match scale {
            _ if low > high => (0.0, 1.0, vec![0.0, 1.0]),
            Scale::Linear => linear(low.min(0.0), high),
            Scale::Log => logarithmic(low, high),
        };
        let scale = if low > 0.0 { scale } else { Scale::Linear };
        let ticks = places.into_iter().map(|place| (place, format(place))).collect();
        Self { label: label.to_owned(), scale, low, high, ticks }
    }

    /// A linear axis for just the range of `values`, which need not hold 0.
    pub(super) fn around(
        label: &str,
        values: impl Iterator<Item = f64>,
        format: impl Fn(f64) -> String,
    ) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high, places) = if low > high { linear(0.0, 1.0) } else { linear(low, high) };
        let ticks = places.into_iter().map(|place| (place, format(place))).collect();
        Self { label: label.to_owned(), scale: Scale::Linear, low, high, ticks }
    }

    /// An axis with these ticks, from the first to `high`.
    pub(super) fn with_ticks(label: &str, scale: Scale, high: f64, ticks: Vec<(f64, String)>) -> Self {
        let low = ticks.first().map_or(0.0, |tick| tick.0);
        Self { label: label.to_owned(), scale, low, high: high.max(low * 1.000_001 + 1e-9), ticks }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of =
            |value: f64| if self.scale == Scale::Log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (low, high) = (of(self.low), of(self.high));
        ((of(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// Round numbers around a range: the lowest, the highest, and all.
fn linear(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let (first, last) = ((low / step).floor(), ((low + span) / step).ceil());
    let places = (0..=(last - first) as usize).map(|n| (first + n as f64) * step).collect();
    (first * step, last * step, places)
}

/// The same on a logarithmic scale: whole decades, with what lies between if there are few.
fn logarithmic(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let within: &[f64] = if (high / low).log10() > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    let all: Vec<f64> =
        (first..=last).flat_map(|decade| within.iter().map(move |n| n * 10_f64.powi(decade))).collect();
    let begin = all.iter().rposition(|place| *place <= low * 1.000_001).unwrap_or(0);
    let end = all.iter().position(|place| *place >= high * 0.999_999).unwrap_or(all.len() - 1).max(begin + 1);
    let end = end.min(all.len() - 1);
    (all[begin], all[end], all[begin..=end].to_vec())
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Line,
    /// A thin line, as of what stands beside another of its style.
    Thin,
    /// A thin solid line, as of a fit.
    Fit,
    Points,
}

/// Points that belong together.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) mark: Mark,
    /// Those of the same style belong together.
    pub(super) style: usize,
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart of series over two axes.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What can be seen in it, for whoever cannot.
    pub(super) description: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// The figure; `id` is unique within the page.
    pub(super) fn render(&self, id: &str) -> String {
        let mut svg = open(id, &self.title, &self.description, HEIGHT);
        self.draw_axes(&mut svg);
        for series in &self.series {
            self.draw(&mut svg, series);
        }
        svg.push_str("</svg>\n");
        figure(&self.title, &(svg + &legend(&self.series)))
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM);
        (across, down)
    }

    fn draw_axes(&self, svg: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in &self.y.ticks {
            let y = self.at((self.x.low, *value)).1;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                escape(text)
            );
        }
        for (value, text) in &self.x.ticks {
            let x = self.at((*value, self.y.low)).0;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(text)
            );
        }
        let (middle_x, middle_y) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\
             <line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom}\"/>\
             <text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(13 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 8.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn draw(&self, svg: &mut String, series: &Series) {
        let (colour, _) = look(series.style);
        let places: Vec<(f64, f64)> = series.points.iter().map(|point| self.at(*point)).collect();
        let drawn_as_points = series.mark == Mark::Points || places.len() == 1;
        if drawn_as_points {
            for (x, y) in places {
                let _ = writeln!(
                    svg,
                    "<circle class=\"d{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
                    escape(&series.name)
                );
            }
            return;
        }
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let class = line_class(series);
        let _ = writeln!(
            svg,
            "<polyline class=\"{class}\" points=\"{}\"><title>{}</title></polyline>",
            path.join(" "),
            escape(&series.name)
        );
    }
}

/// How the line of a series looks.
fn line_class(series: &Series) -> String {
    let (colour, pattern) = look(series.style);
    match series.mark {
        Mark::Thin => format!("line s{colour} p{pattern} thin"),
        Mark::Fit => format!("line s{colour} thin"),
        Mark::Line | Mark::Points => format!("line s{colour} p{pattern}"),
    }
}

/// A ratio with its interval, as a row.
#[derive(Debug)]
pub(super) struct Interval {
    pub(super) name: String,
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
    pub(super) style: usize,
    pub(super) text: String,
}

/// A chart of intervals below each other, with a line at 1.
pub(super) fn intervals(id: &str, title: &str, description: &str, rows: &[Interval]) -> String {
    let ends = rows.iter().flat_map(|row| [row.low, row.high]).chain([1.0]);
    // Ratios of 2 and of 1/2 are equally far from 1.
    let wide = rows.iter().any(|row| row.high > 3.0 || row.low < 1.0 / 3.0);
    let axis = if wide {
        Axis::over("", Scale::Log, ends, |value| format!("{value}"))
    } else {
        // With something beside 1 even if every ratio is 1.
        Axis::around("", ends.chain([0.99, 1.01]), |value| format!("{value:.2}"))
    };
    let bottom = TOP + ROW * rows.len() as f64;
    let mut svg = open(id, title, description, bottom + 30.0);
    let right = WIDTH - 175.0;
    let place = |value: f64| NAMES + axis.place(value) * (right - NAMES);
    for (value, text) in &axis.ticks {
        let x = place(*value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            bottom + 16.0
        );
    }
    let one = place(1.0);
    let _ =
        writeln!(svg, "<line class=\"one\" x1=\"{one:.1}\" y1=\"{TOP}\" x2=\"{one:.1}\" y2=\"{bottom}\"/>");
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        let (low, middle, high) = (place(row.low), place(row.middle), place(row.high));
        let (colour, _) = look(row.style);
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line class=\"line s{colour}\" x1=\"{low:.1}\" y1=\"{y:.1}\" x2=\"{high:.1}\" y2=\"{y:.1}\"/>\
             <circle class=\"d{colour}\" cx=\"{middle:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>\
             <text x=\"{}\" y=\"{:.1}\">{}</text>",
            NAMES - 12.0,
            y + 4.0,
            escape(&row.name),
            right + 12.0,
            y + 4.0,
            escape(&row.text)
        );
    }
    svg.push_str("</svg>\n");
    figure(title, &svg)
}

fn open(id: &str, title: &str, description: &str, height: f64) -> String {
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n\
         <title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
        escape(title),
        escape(description)
    )
}

fn figure(title: &str, body: &str) -> String {
    format!("<figure>\n<figcaption>{}</figcaption>\n{body}</figure>\n", escape(title))
}

/// The names of the series beside what they look like.
fn legend(series: &[Series]) -> String {
    let mut list = String::from("<ul class=\"legend\">\n");
    for series in series.iter().filter(|series| series.mark != Mark::Fit) {
        let sample = if series.mark == Mark::Points || series.points.len() == 1 {
            format!("<circle class=\"d{}\" cx=\"17\" cy=\"5\" r=\"4\"/>", look(series.style).0)
        } else {
            format!("<line class=\"{}\" x1=\"0\" y1=\"5\" x2=\"34\" y2=\"5\"/>", line_class(series))
        };
        let _ = writeln!(
            list,
            "<li><svg viewBox=\"0 0 34 10\" aria-hidden=\"true\">{sample}</svg>{}</li>",
            escape(&series.name)
        );
    }
    list.push_str("</ul>\n");
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_hold_the_range() {
        assert_eq!(linear(0.0, 10.0), (0.0, 10.0, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]));
        let (low, high, places) = linear(0.0, 123_456.0);
        assert!(low == 0.0 && high >= 123_456.0 && places.len() < 9, "{places:?}");
        let (low, high, _) = linear(0.93, 1.08);
        assert!(low <= 0.93 && low > 0.8 && (1.08..1.2).contains(&high), "{low} {high}");
    }

    #[test]
    fn logarithmic_ticks_hold_the_range() {
        assert_eq!(logarithmic(30.0, 450.0), (20.0, 500.0, vec![20.0, 50.0, 100.0, 200.0, 500.0]));
        let (low, high, places) = logarithmic(3.0, 2e6);
        assert_eq!((low, high, places.len()), (1.0, 1e7, 8));
        let (low, high, _) = logarithmic(100.0, 100.0);
        assert!(low <= 100.0 && high > 100.0, "{low} {high}");
    }

    #[test]
    fn lines_look_different() {
        let styles = COLOURS * COLOURS;
        let looks: std::collections::HashSet<_> = (0..styles).map(look).collect();
        assert_eq!(looks.len(), styles);
        let patterns: std::collections::HashSet<_> = (0..COLOURS).map(|style| look(style).1).collect();
        assert_eq!(patterns.len(), COLOURS, "without colours too");
        let css = include_str!("style.css");
        for style in 0..COLOURS {
            assert_eq!(css.matches(&format!("--c{style}: #")).count(), 3, "light, dark and on paper");
            assert!(css.contains(&format!(".s{style} {{")) && css.contains(&format!(".d{style} {{")));
            assert!(style == 0 || css.contains(&format!(".p{style} {{ stroke-dasharray")), "{style}");
        }
    }

    #[test]
    fn values_without_sense_leave_an_axis() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![-1.0, f64::INFINITY]] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis::over("x", scale, values.iter().copied(), |value| value.to_string());
                assert!(axis.high > axis.low, "{axis:?}");
                assert!(axis.place(0.5).is_finite(), "{axis:?}");
            }
        }
    }
}
