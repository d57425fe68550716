//! [`plot`]: lines on logarithmic axes, as an SVG file.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

/// One line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it says in the legend.
    pub name: String,
    /// Size and cost, both more than 0.
    pub points: Vec<(f64, f64)>,
}

/// Writes the lines, each divided by its first cost, so that a slope is an exponent.
///
/// # Errors
/// When the file cannot be written.
pub fn plot(file: &Path, title: &str, axis: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let lines: Vec<Line> = lines.iter().map(relative).collect();
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (from, to) = points().fold((f64::MAX, f64::MIN), |(from, to), (x, _)| (from.min(x), to.max(x)));
    let (low, high) = points().fold((0.5_f64, 2.0_f64), |(low, high), (_, y)| (low.min(y), high.max(y)));
    let area = SVGBackend::new(file, (1040, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, legend) = area.split_horizontally(600);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((from..to).log_scale(), (low..high * 1.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axis)
        .y_desc("cost, of that of the first")
        .draw()?;
    for (place, line) in lines.iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        let marks = line.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(LineSeries::new(line.points.iter().copied(), &color))?;
        chart.draw_series(marks)?;
        let y = 60 + 20 * place as i32;
        legend.draw(&Rectangle::new([(0, y), (14, y + 10)], color.filled()))?;
        legend.draw(&Text::new(line.name.clone(), (20, y - 2), ("sans-serif", 13)))?;
    }
    area.present()?;
    Ok(())
}

/// What hardly costs anything counts as 1, as in [`exponent`](super::exponent).
fn relative(line: &Line) -> Line {
    let first = line.points.first().map_or(1.0, |(_, y)| y.max(1.0));
    let points = line.points.iter().map(|(x, y)| (*x, y.max(1.0) / first)).collect();
    Line { name: line.name.clone(), points }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_lines_and_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plot.svg");
        let line = |name: &str, power: i32| Line {
            name: name.to_owned(),
            points: [1.0_f64, 10.0, 100.0].map(|x| (x, 5.0 * x.powi(power))).to_vec(),
        };
        plot(&file, "a title", "Clients", &[line("constant", 0), line("linear", 1)]).unwrap();
        let svg = std::fs::read_to_string(file).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["a title", "Clients", "constant", "linear"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
    }
}
