//! Line plots as SVG text, for reports that must not fetch anything.
//!
//! Owns scales, ticks and paths. Colours are CSS classes (`s0` to `s5`) that the page defines. Pure; every number is written with a fixed
//! count of decimals, so the same report gives the same bytes.

use std::fmt::Write as _;

/// Size of a plot, in the units of its view box.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 42.0;

/// Points of one line, at most; more are thinned to the largest of each stretch, so that no peak is lost.
const POINTS_MAX: usize = 800;

/// One line.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

/// How an axis counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// One axis.
pub(super) struct Axis<'a> {
    pub(super) title: &'a str,
    pub(super) scale: Scale,
    /// Places and texts of the ticks; chosen from the data if there are none.
    pub(super) ticks: Vec<(f64, String)>,
}

struct Range {
    least: f64,
    most: f64,
    scale: Scale,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>, axis: &Axis<'_>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.chain(axis.ticks.iter().map(|tick| tick.0)) {
            (least, most) = (least.min(value), most.max(value));
        }
        if !least.is_finite() || !most.is_finite() {
            (least, most) = (1.0, 10.0);
        }
        match axis.scale {
            Scale::Linear => {
                least = least.min(0.0);
                if most <= least {
                    most = least + 1.0;
                }
            }
            Scale::Log => {
                least = 10f64.powf(least.max(1e-9).log10().floor());
                most = 10f64.powf(most.max(1e-9).log10().ceil()).max(least * 10.0);
            }
        }
        Self { least, most, scale: axis.scale }
    }

    /// Place between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Log => {
                let (from, to) = (self.least.log10().round() as i32, self.most.log10().round() as i32);
                (from..=to).map(|power| 10f64.powi(power)).map(|value| (value, short(value))).collect()
            }
            Scale::Linear => {
                let step = nice((self.most - self.least) / 5.0);
                let first = (self.least / step).ceil() as i64;
                let last = (self.most / step).floor() as i64;
                (first..=last).map(|number| number as f64 * step).map(|value| (value, short(value))).collect()
            }
        }
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|factor| factor * power)
        .find(|nice| *nice >= step)
        .unwrap_or(10.0 * power)
}

/// A number in a few characters.
fn short(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// A plot of lines over the same axes.
pub(super) fn plot(title: &str, x: &Axis<'_>, y: &Axis<'_>, series: &[Series<'_>]) -> String {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let across = Range::of(points().map(|point| point.0), x);
    let up = Range::of(points().map(|point| point.1), y);
    let px = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let py = |value: f64| HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\" role=\"img\" aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    let x_ticks = if x.ticks.is_empty() { across.ticks() } else { x.ticks.clone() };
    for (value, text) in x_ticks {
        let place = px(value);
        let (low, high) = (HEIGHT - BOTTOM, TOP);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{place:.1}\" y1=\"{low:.1}\" x2=\"{place:.1}\" y2=\"{high:.1}\"/>\
             <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            low + 16.0,
            escape(&text)
        );
    }
    let y_ticks = if y.ticks.is_empty() { up.ticks() } else { y.ticks.clone() };
    for (value, text) in y_ticks {
        let place = py(value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT:.1}\" y1=\"{place:.1}\" x2=\"{:.1}\" y2=\"{place:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            place + 4.0,
            escape(&text)
        );
    }
    let (middle, mid) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
    let _ = write!(
        out,
        "<text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"14\" y=\"{mid:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {mid:.1})\">{}</text>",
        HEIGHT - 6.0,
        escape(x.title),
        escape(y.title)
    );
    for (number, series) in series.iter().enumerate() {
        let mut path = String::new();
        for (x, y) in thinned(&series.points) {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", px(x), py(y));
        }
        let dashed = if series.dashed { " dashed" } else { "" };
        let _ = write!(out, "<path class=\"line s{}{dashed}\" d=\"{path}\"/>", number % 6);
    }
    out.push_str("</svg><div class=\"legend\">");
    for (number, series) in series.iter().enumerate() {
        let dashed = if series.dashed { " dashed" } else { "" };
        let _ = write!(out, "<span><i class=\"k{}{dashed}\"></i>{}</span>", number % 6, escape(series.name));
    }
    out.push_str("</div></figure>\n");
    out
}

/// At most [`POINTS_MAX`] points: the highest of each stretch.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |chunk: &[(f64, f64)]| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(each).filter_map(highest).collect()
}

/// Text as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_and_short() {
        assert_eq!(
            [short(0.0), short(1_500.0), short(2e6), short(0.25), short(100.0)],
            ["0", "1.5k", "2M", "0.25", "100"]
        );
        assert_eq!([nice(0.3), nice(1.0), nice(7.0), nice(23.0)], [0.5, 1.0, 10.0, 50.0]);
    }

    #[test]
    fn a_peak_survives_thinning_and_text_cannot_break_out() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        points[4_321].1 = 99.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS_MAX && thin.iter().any(|point| point.1 == 99.0));
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn an_empty_plot_is_still_a_plot() {
        let axis = |scale| Axis { title: "t", scale, ticks: Vec::new() };
        for scale in [Scale::Linear, Scale::Log] {
            let text = plot("nothing", &axis(scale), &axis(scale), &[]);
            assert!(text.contains("<svg") && !text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
