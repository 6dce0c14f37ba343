//! Plots as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Whose it is.
    pub label: String,
    /// Which colour: the same number is the same colour in all plots.
    pub colour: usize,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (960, 540);
/// As far from each other as sixteen colours can be.
const COLOURS: [RGBColor; 16] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x17, 0xbe, 0xcf),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0xbc, 0xbd, 0x22),
    RGBColor(0xe3, 0x77, 0xc2),
    RGBColor(0x00, 0x3f, 0x5c),
    RGBColor(0x9a, 0xcd, 0x32),
    RGBColor(0xb8, 0x86, 0x0b),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0xff, 0x00, 0x66),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x00, 0xc8, 0x53),
];

/// Draws curves, as steps or as lines with marks.
///
/// # Errors
/// When the file can't be written.
pub fn draw(
    file: &Path,
    title: &str,
    (x_name, y_name): (&str, &str),
    curves: &[Curve],
    steps: bool,
) -> Result<()> {
    let fail = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", file.display());
    let points = || curves.iter().flat_map(|c| c.points.iter());
    let x_max = points().map(|p| p.0).fold(1e-3, f64::max) * 1.02;
    let y_max = points().map(|p| p.1).fold(1e-3, f64::max) * 1.05;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| fail(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .right_y_label_area_size(0)
        .build_cartesian_2d(0.0..x_max * 1.25, 0.0..y_max)
        .map_err(|e| fail(&e))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x_name)
        .y_desc(y_name)
        .draw()
        .map_err(|e| fail(&e))?;
    for curve in curves {
        let colour = COLOURS
            .get(curve.colour % COLOURS.len())
            .copied()
            .unwrap_or(BLACK);
        let width = if curve.label.starts_with("VMDT") {
            3
        } else {
            2
        };
        let line = if steps {
            let mut line = Vec::new();
            let mut y = 0.0;
            for point in &curve.points {
                line.push((point.0, y));
                line.push(*point);
                y = point.1;
            }
            line
        } else {
            curve.points.clone()
        };
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(width)))
            .map_err(|e| fail(&e))?
            .label(curve.label.clone())
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(width))
            });
        if !steps {
            let marks = curve
                .points
                .iter()
                .map(|p| Circle::new(*p, 3, colour.filled()));
            chart.draw_series(marks).map_err(|e| fail(&e))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|e| fail(&e))?;
    area.present().map_err(|e| fail(&e))
}
