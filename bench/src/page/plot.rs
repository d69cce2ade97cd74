//! Plots as SVG, by plotters.
//!
//! Each is drawn twice: wide, and narrow for a telephone, where the letters of the wide one would be too
//! small. Colours are names until the end, so that the page can give them to a light and a dark mode
//! ([`themed`]) and a file of its own has fixed ones ([`fixed`]).

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;

/// Text and axes. The values are only names, which the finished SVG is searched for.
const INK: RGBColor = RGBColor(1, 1, 1);
/// Lines of the grid.
const GRID: RGBColor = RGBColor(2, 2, 2);
/// Events.
const EVENT: RGBColor = RGBColor(3, 3, 3);
/// The lines of a plot.
const SERIES: [RGBColor; 6] = [
    RGBColor(4, 4, 4),
    RGBColor(5, 5, 5),
    RGBColor(6, 6, 6),
    RGBColor(7, 7, 7),
    RGBColor(8, 8, 8),
    RGBColor(9, 9, 9),
];
/// Most lines of a plot that can be told apart.
pub(super) const MOST_LINES: usize = SERIES.len();

/// Names of colours: in the SVG, of the page's style, and the fixed one.
const COLOURS: [(&str, &str, &str); 9] = [
    ("#010101", "var(--ink)", "#1f2328"),
    ("#020202", "var(--grid)", "#d8dee4"),
    ("#030303", "var(--event)", "#b42318"),
    ("#040404", "var(--series-1)", "#0550ae"),
    ("#050505", "var(--series-2)", "#9a4a00"),
    ("#060606", "var(--series-3)", "#116329"),
    ("#070707", "var(--series-4)", "#8250df"),
    ("#080808", "var(--series-5)", "#bf3989"),
    ("#090909", "var(--series-6)", "#57606a"),
];

/// A plot in both sizes.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// The name of its file, without an ending.
    pub(super) name: &'static str,
    /// What stands above it.
    pub(super) title: String,
    /// What it shows, for whoever cannot see it.
    pub(super) description: String,
    pub(super) wide: String,
    pub(super) narrow: String,
}

/// A size, and how large letters are in it.
#[derive(Clone, Copy, Debug)]
struct Size {
    width: u32,
    height: u32,
    letters: u32,
    labels: usize,
    /// Most points of a line: more are put together, or they would make an area of it.
    points: usize,
}

const WIDE: Size = Size { width: 960, height: 340, letters: 15, labels: 8, points: 1200 };
const NARROW: Size = Size { width: 360, height: 260, letters: 13, labels: 4, points: 200 };

/// A line with its name.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point is marked, as of a curve with few.
    pub(super) is_marked: bool,
}

/// The inside of a plot's axes.
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What a plot is made of.
pub(super) struct Drawing<'a> {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) x_title: &'a str,
    pub(super) y_title: &'a str,
    pub(super) x_label: &'a dyn Fn(f64) -> String,
    pub(super) y_label: &'a dyn Fn(f64) -> String,
    pub(super) lines: Vec<Line>,
    /// If the lines are parts of bars, each on top of the one before: what stands below each bar, and above it.
    pub(super) bars: Vec<(String, String)>,
    /// Vertical lines with their labels.
    pub(super) events: Vec<(f64, String)>,
    /// Where the x axis begins and ends; by default as the points do.
    pub(super) x_range: Option<(f64, f64)>,
}

impl Drawing<'_> {
    /// Draws it.
    ///
    /// # Errors
    /// If plotters refuses.
    pub(super) fn draw(self) -> Result<Plot, Error> {
        let failed = |e: String| Error::new(format!("cannot draw {}: {e}", self.name));
        // Names take as much room in a plot of bars as the bars.
        let more = if self.bars.is_empty() { 0 } else { 8 };
        let size = |size: Size| Size { height: size.height + more * size.letters, ..size };
        let wide = self.at(size(WIDE)).map_err(failed)?;
        let narrow = self.at(size(NARROW)).map_err(failed)?;
        let (name, title, description) = (self.name, self.title, self.description);
        Ok(Plot { name, title, description, wide, narrow })
    }

    /// How far the y axis goes beyond the highest point, as a factor: names of lines stand above them.
    fn headroom(&self, size: Size) -> f64 {
        let names = if self.lines.len() > 1 { self.lines.len() } else { 0 };
        // The first bar stands below the names, with a row above it.
        let extra = if self.bars.is_empty() { 0.5 } else { 2.0 };
        let rows = (names as f64 + extra) * f64::from(size.letters) * 1.3;
        let height = f64::from(size.height - 20 - 3 * size.letters);
        (1.0 / (1.0 - (rows / height).min(0.6))).max(1.12)
    }

    /// How high each bar is.
    fn bar_ends(&self) -> Vec<f64> {
        let part = |line: &Line, bar: usize| line.points.get(bar).map_or(0.0, |(_, y)| *y);
        let high = |bar| self.lines.iter().map(|line| part(line, bar)).sum();
        (0..self.bars.len()).map(high).collect()
    }

    fn draw_bars<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, Shift>,
        chart: &mut Chart<'_, 'a>,
        size: Size,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
        let mut ends = vec![0.0; self.bars.len()];
        for (number, line) in self.lines.iter().enumerate() {
            let style = SERIES[number % SERIES.len()].filled();
            let parts = line.points.iter().zip(&mut ends).map(|((x, y), end)| {
                let from = *end;
                *end += y;
                Rectangle::new([(x - 0.36, from), (x + 0.36, *end)], style)
            });
            let drawn = chart.draw_series(parts)?;
            drawn
                .label(&line.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 16, y + 5)], style));
        }
        let font = ("sans-serif", size.letters).into_font().color(&INK);
        for (number, ((below, above), end)) in self.bars.iter().zip(ends).enumerate() {
            let x = number as f64;
            let style = font.pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([Text::new(above.clone(), (x, end), style)])?;
            let (x, y) = chart.backend_coord(&(x, 0.0));
            let style = font.pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(below.clone(), (x, y + size.letters as i32 / 3), style))?;
        }
        Ok(())
    }

    fn at(&self, size: Size) -> Result<String, String> {
        let mut svg = String::new();
        {
            let area =
                SVGBackend::with_string(&mut svg, (size.width, size.height)).into_drawing_area();
            self.draw_on(&area, size).map_err(|e| e.to_string())?;
            area.present().map_err(|e| e.to_string())?;
        }
        Ok(svg)
    }

    fn draw_on(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        size: Size,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'_> as DrawingBackend>::ErrorType>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most_y = match self.bars.len() {
            0 => points().map(|(_, y)| *y).fold(0.0, f64::max).max(1e-9),
            _ => self.bar_ends().into_iter().fold(1e-9, f64::max),
        };
        let top = most_y * self.headroom(size);
        let (least_x, most_x) = self.x_range.unwrap_or_else(|| {
            let least = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
            let most = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
            if least < most { (least, most) } else { (least - 1.0, most + 1.0) }
        });
        let font = |colour: RGBColor| ("sans-serif", size.letters).into_font().color(&colour);
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .margin_right(size.letters * 2)
            .x_label_area_size(size.letters * 3)
            .y_label_area_size(size.letters * 5)
            .build_cartesian_2d(least_x..most_x, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .x_labels(if self.bars.is_empty() { size.labels } else { 0 })
            .y_labels(6)
            .x_label_formatter(&|x| (self.x_label)(*x))
            .y_label_formatter(&|y| (self.y_label)(*y))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(font(INK))
            .axis_desc_style(font(INK))
            .draw()?;
        if !self.bars.is_empty() {
            self.draw_bars(area, &mut chart, size)?;
        }
        for (number, line) in self.lines.iter().enumerate().filter(|_| self.bars.is_empty()) {
            let colour = SERIES[number % SERIES.len()];
            let points = thinned(&line.points, size.points);
            let style = colour.stroke_width(if points.len() > size.points / 4 { 1 } else { 2 });
            let drawn = chart.draw_series(LineSeries::new(points, style))?;
            if self.lines.len() > 1 {
                drawn
                    .label(&line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
            if line.is_marked {
                let mark = |point: &(f64, f64)| Circle::new(*point, 4, colour.filled());
                chart.draw_series(line.points.iter().map(mark))?;
            }
        }
        for (number, (x, label)) in self.events.iter().enumerate() {
            chart.draw_series(LineSeries::new([(*x, 0.0), (*x, top)], EVENT.stroke_width(1)))?;
            // Labels of neighbours stand below each other; on the right half, left of their lines.
            let is_right = *x > (least_x + most_x) / 2.0;
            let anchor = if is_right { HPos::Right } else { HPos::Left };
            let beside = (most_x - least_x) * if is_right { -0.006 } else { 0.006 };
            let style = font(EVENT).pos(Pos::new(anchor, VPos::Top));
            let y = top * (1.0 - 0.07 * (number % 4) as f64);
            chart.draw_series([Text::new(label.clone(), (*x + beside, y), style)])?;
        }
        if self.lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .label_font(font(INK))
                .border_style(GRID)
                .draw()?;
        }
        Ok(())
    }
}

/// As many points at most, each the mean of neighbours.
fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let together = points.len().div_ceil(most).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    points.chunks(together).map(mean).collect()
}

/// An SVG for the page: its colours are those of the page's style.
pub(super) fn themed(svg: &str) -> String {
    let coloured =
        COLOURS.iter().fold(svg.to_owned(), |svg, (name, theme, _)| svg.replace(name, theme));
    // The figure around it has a label; its pieces need not be read aloud.
    coloured.replacen("<svg ", "<svg aria-hidden=\"true\" focusable=\"false\" ", 1)
}

/// An SVG for a file of its own.
pub(super) fn fixed(svg: &str) -> String {
    let coloured =
        COLOURS.iter().fold(svg.to_owned(), |svg, (name, _, fixed)| svg.replace(name, fixed));
    coloured.replacen("<svg ", "<svg style=\"background:#ffffff\" ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_put_together_if_there_are_too_many() {
        let points = [(0.0, 2.0), (1.0, 4.0), (2.0, 6.0), (3.0, 8.0), (4.0, 1.0)];
        assert_eq!(thinned(&points, 5), points);
        assert_eq!(thinned(&points, 3), [(0.5, 3.0), (2.5, 7.0), (4.0, 1.0)]);
        assert!(thinned(&[], 3).is_empty());
    }

    #[test]
    fn colours_are_those_of_the_page_or_fixed_ones() {
        let svg = "<svg width=\"1\"><path stroke=\"#010101\" fill=\"#060606\"/></svg>";
        assert!(themed(svg).contains("stroke=\"var(--ink)\" fill=\"var(--series-3)\""));
        assert!(fixed(svg).contains("stroke=\"#1f2328\" fill=\"#116329\""));
    }
}
