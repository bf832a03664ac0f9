//! The course of a training as one SVG: the loss by step (for `dapo` the reward), and where there
//! were validations, their loss.
//!
//! The look is that of the report's figures (`evaluate::charts`).

use plotters::prelude::*;

use super::log::Row;
use crate::evaluate::charts::{BLUE, GRID, INK, ORANGE};

/// The file's name.
pub const NAME: &str = "curve.svg";

const SIZE: (u32, u32) = (640, 380);

type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Draws the rows of a log. An empty drawing where there are none.
///
/// # Errors
/// The drawing library reports a failure.
pub fn svg(rows: &[Row]) -> Drawn<String> {
    let points = |name: &str| -> Vec<(f64, f64)> {
        let point = |row: &Row| Some((row.step as f64, row.get(name)?));
        rows.iter().filter_map(point).filter(|(_, y)| y.is_finite()).collect()
    };
    let reward = points("reward_mean");
    let (name, main) = match reward.is_empty() {
        true => ("loss", points("loss")),
        false => ("reward", reward),
    };
    let valid = points("valid_loss");
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let all = || main.iter().chain(&valid).map(|(_, y)| *y);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::MIN, f64::max));
        let last = rows.last().map_or(1.0, |row| row.step as f64).max(2.0);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = ((high - low) * 0.05).max(1e-6);
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(58)
            .build_cartesian_2d(1.0..last, low - room..high + room)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .x_desc("step")
            .y_desc(name)
            .draw()?;
        let line = LineSeries::new(main.iter().copied(), BLUE.stroke_width(2));
        chart
            .draw_series(line)?
            .label(name)
            .legend(|(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], BLUE.stroke_width(2)));
        if !valid.is_empty() {
            let dashed = DashedLineSeries::new(valid.iter().copied(), 7, 4, ORANGE.stroke_width(2));
            chart.draw_series(dashed)?.label("validation").legend(|(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], ORANGE.stroke_width(2))
            });
            chart.draw_series(valid.iter().map(|p| Circle::new(*p, 3, ORANGE.filled())))?;
            chart
                .configure_series_labels()
                .label_font(("sans-serif", 15).into_font().color(&INK))
                .border_style(GRID)
                .background_style(WHITE.mix(0.8))
                .draw()?;
        }
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_validation_are_drawn_and_a_short_log_too() {
        let row = |step: usize| {
            let mut numbers = vec![("loss".to_owned(), 5.0 / step as f64)];
            numbers.extend((step % 4 == 0).then(|| ("valid_loss".to_owned(), 6.0 / step as f64)));
            Row { step, numbers }
        };
        let rows: Vec<Row> = (1..=12).map(row).collect();
        let drawn = svg(&rows).unwrap();
        assert!(drawn.contains("validation") && drawn.contains("step") && drawn.contains("<svg"));
        assert_eq!(drawn.matches("<circle").count(), 3);
        assert_eq!(svg(&rows).unwrap(), drawn);
        for short in [&rows[..1], &[]] {
            assert!(!svg(short).unwrap().contains("NaN"));
        }
        let reward = Row { step: 1, numbers: vec![("reward_mean".into(), 0.4)] };
        assert!(svg(&[reward]).unwrap().contains("reward"));
    }
}
