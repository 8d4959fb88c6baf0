//! Lines over time as SVG, without anybody's help: axes, grid, legend.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [70.0, 150.0, 34.0, 44.0];
const GRID_LINES: u32 = 5;
/// Okabe and Ito's colours: distinct for all kinds of sight.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Name and unit of what goes to the right.
    pub x: String,
    /// Name and unit of what goes up.
    pub y: String,
    /// Lines by name, each of points with ascending `x`.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot {
    /// As an SVG document. Points that are no numbers are left out.
    pub fn svg(&self) -> String {
        let points =
            || self.lines.iter().flat_map(|(_, points)| points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let (x_max, y_max) = (most(|point| point.0), round_up(most(|point| point.1)));
        let [left, right, top, bottom] = MARGIN;
        let (width, height) = (WIDTH - left - right, HEIGHT - top - bottom);
        let at = |(x, y): (f64, f64)| (left + x / x_max * width, top + height - y / y_max * height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>\n",
            escape(&self.title)
        );
        for line in 0..=GRID_LINES {
            let part = f64::from(line) / f64::from(GRID_LINES);
            let ((x, _), (_, y)) = (at((part * x_max, 0.0)), at((0.0, part * y_max)));
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                left - 6.0,
                y + 4.0,
                number(part * y_max),
                HEIGHT - bottom + 16.0,
                number(part * x_max)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text transform=\"translate(16 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            left + width / 2.0,
            HEIGHT - 8.0,
            escape(&self.x),
            top + height / 2.0,
            escape(&self.y)
        );
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let finite = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let path: Vec<String> = finite.map(|&point| at(point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let y = top + 14.0 + 18.0 * index as f64;
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/><path d=\"M{:.1} {:.1}h18\" \
                 stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                path.join(" "),
                WIDTH - right + 8.0,
                y - 4.0,
                WIDTH - right + 30.0,
                escape(name)
            );
        }
        svg + "</svg>\n"
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten: grid lines then are at round numbers.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&round| round >= value).unwrap_or(value)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_within_the_frame_and_text_is_escaped() {
        let line = vec![(0.0, 0.0), (5.0, f64::NAN), (10.0, 40.0)];
        let plot =
            Plot { title: "a < b".into(), x: "s".into(), y: "MiB".into(), lines: vec![("one & two".into(), line)] };
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; two"), "{svg}");
        assert!(svg.contains("points=\"70.0,276.0 610.0,82.4\""), "{svg}");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.9, 1.0, 130.0, 201.0, 260.0].map(round_up), [1.0, 1.0, 200.0, 250.0, 500.0]);
    }
}
